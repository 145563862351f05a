"""The student: engines, the worker group, checkpoints, and the export."""
