"""Measuring fastccsa against other implementations, and against what the machine allows.

``timing``, ``counting``, ``contestants``, ``session``, ``results``, ``table`` and ``plot`` serve every benchmark; each
benchmark has a package of its own beside them (``zipped``, ``all_pairs``).
"""
