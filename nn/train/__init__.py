"""Training runs behind `hal train`: the tasks, the loop, checkpoints that survive a crash, and the curve."""
