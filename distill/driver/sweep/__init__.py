"""``distill sweep``: trials with Ray Tune."""
