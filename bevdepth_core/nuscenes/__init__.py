"""Everything that knows the nuScenes classes, cameras and formats."""
