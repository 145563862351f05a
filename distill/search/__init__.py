"""One set of teachers, many students: the space, the tuner, its trials, and their frontier."""
