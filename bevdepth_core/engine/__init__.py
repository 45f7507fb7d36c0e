"""Runs the network for the ``Detector``: step by step, as CUDA graphs on a GPU, or as an exported
network.
"""
