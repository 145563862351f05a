"""Data sets and encoders that the shipped configurations use, built from pinned packages."""
