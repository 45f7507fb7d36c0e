"""Exports networks for other runtimes and compares the result with the Detector
(docs/EXPORT.md).
"""
