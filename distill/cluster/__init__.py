"""Ray: connecting, placement, tasks, and the worker group of a student."""
