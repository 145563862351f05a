"""Mixture-of-experts teachers: which experts are asked, and how a gate learns from the student."""
