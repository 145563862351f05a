"""distill: several large expert teachers in, one small student out."""

__version__ = "0.1.0"
