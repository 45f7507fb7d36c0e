"""Code that depends on the nuScenes classes, cameras and formats."""
