"""The commands that train: checks, stages, the run from start to end."""
