"""Runs the network for the ``Detector``: step by step, as CUDA graphs on a GPU, or in ONNX
Runtime.
"""
