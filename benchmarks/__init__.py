"""Benchmarks that compare fastccsa with other implementations and with the limits of the machine.

Run them with ``pytest benchmarks``, ``python -m benchmarks NAME`` or ``fastccsa bench NAME`` from a checkout. Each
``bench_*.py`` is one benchmark; ``harness`` measures contestants in turns and records the results.
"""
