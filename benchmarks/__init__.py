"""Benchmarks that compare fastccsa with other implementations and with the limits of the machine.

Run them with ``pytest benchmarks``, ``python -m benchmarks NAME`` or ``fastccsa bench NAME`` from a checkout. Each
``bench_*.py`` is one benchmark; ``harness`` measures contestants in turns and records the results.
"""

import os
import sys

# `python -m` puts the checkout first in the search path. It goes to the end, so that an installed fastccsa takes
# precedence over the checkout's folder of the same name, which may not be built.
_ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path[:] = [*(path for path in sys.path if os.path.abspath(path) != _ROOT), _ROOT]
