"""Training and evaluation of BEVDepth; installed as `bevdepth_training`."""
