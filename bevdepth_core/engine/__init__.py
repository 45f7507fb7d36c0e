"""How the network runs for the ``Detector``: as it is on the CPU, folded and replayed as CUDA
graphs on a GPU.
"""
