"""Teachers: serving, requests and outputs, transport, cache.

engine, wires, local, stream and cache run in one process without Ray; actor and pool need it.
"""
