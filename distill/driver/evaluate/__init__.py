"""``distill evaluate``."""
