"""Reads and writes datasets and results in the formats of nuScenes."""
