"""Benchmarks of fastccsa beside other implementations and beside what the machine allows.

Run them with ``pytest benchmarks``, ``python -m benchmarks NAME`` or ``fastccsa bench NAME`` from a checkout. Each
``bench_*.py`` is one benchmark; ``harness`` measures contestants in turns and records the results.
"""
