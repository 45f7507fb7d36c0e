"""What ``launch/detect.launch.py`` consists of: arguments, parameters, nodes, views, replay."""
