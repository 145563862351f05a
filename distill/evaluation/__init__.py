"""Quality, efficiency, robustness and fidelity of models."""
