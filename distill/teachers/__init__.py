"""Teachers: what they answer, how it travels, and how it is kept.

engine, wires, local, stream and cache run in one process without Ray; actor and pool need it.
"""
