"""The parts that all benchmarks share: turns, memory, rows of results, and their table and chart."""
