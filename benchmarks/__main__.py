"""``python -m benchmarks NAME``: the same commands as ``fastccsa bench NAME``."""

import sys

from fastccsa.cli import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]], prog_name="fastccsa")
