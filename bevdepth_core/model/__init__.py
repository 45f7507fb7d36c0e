"""The BEVDepth network."""

from bevdepth_core.model.bevdepth import BEVDepth

__all__ = ['BEVDepth']
