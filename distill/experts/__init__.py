"""Experts of a mixture: partition of the data, and the jobs that train experts and router."""
