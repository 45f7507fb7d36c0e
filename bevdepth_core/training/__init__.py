"""Training and offline evaluation; the rest of `bevdepth_core` never imports it."""
