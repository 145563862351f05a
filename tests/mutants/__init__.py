"""One-line changes of method rules, each of which a test must fail. `make mutants` runs them.

``<area>/<rule>.patch`` is a unified diff against the repository root. Its head names the rule and
the tests that pin it.
"""
