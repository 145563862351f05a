"""The tasks: what rows, students, metrics and comparisons are. One package for each."""
