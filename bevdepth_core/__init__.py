"""BEVDepth: 3D detection from cameras, as a PyTorch library without ROS."""
