"""The parts of ``launch/detect.launch.py``: arguments, parameters, nodes, views, replay."""
