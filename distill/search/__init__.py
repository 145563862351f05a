"""Search over configurations: space, trials, frontier, configuration memory."""
