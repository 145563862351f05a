"""Training one model: the loop, the trainable modules, engines, checkpoints."""
