"""What a run is about: one package for each task."""
