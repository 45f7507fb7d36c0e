"""How the network runs for the ``Detector``: step by step on the CPU, or replayed as CUDA graphs
on a GPU; with batch norms folded into the convolutions on both.
"""
