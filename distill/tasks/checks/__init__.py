"""Checks that tasks share."""
