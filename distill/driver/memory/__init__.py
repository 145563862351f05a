"""Shared memory: teachers' outputs and finished fits, found again by content in later experiments.

<memory.path>/answers/<fingerprint>/   one teacher's outputs, as in teachers/cache.py
<memory.path>/fits/<content key>/      one finished fit; see store.py
"""
