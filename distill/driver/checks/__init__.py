"""Everything that can be known before a process starts."""
