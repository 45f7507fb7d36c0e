"""Runs the network for the ``Detector``: step by step on the CPU, or as replayed CUDA graphs on a
GPU. Both fold batch norms into the convolutions.
"""
