"""What a model is worth: quality, and what it costs."""
