"""Mixture-of-experts teachers: which experts run, and how gates train on the student's text."""
