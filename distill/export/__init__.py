"""Exported students: writing, locating, converting, predicting."""
