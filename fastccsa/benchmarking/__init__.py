"""Measuring fastccsa against other implementations, and against what the machine allows.

``timing``, ``counting``, ``contestants``, ``session``, ``results``, ``table``, ``plot`` and ``show`` serve several
benchmarks. The losses (``zipped``, ``all_pairs``) and the ``images`` have a package each, the training ``step`` and
``pruned`` models a module.
"""
