"""Language models: rows are blocks of packed sequences, positions are tokens."""
