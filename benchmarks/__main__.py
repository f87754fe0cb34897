"""``python -m benchmarks NAME``: the same commands as ``fastccsa bench NAME``."""

import sys

# The installed package comes before the checkout's folder of the same name, which may not be built.
sys.path.append(sys.path.pop(0))

from fastccsa.cli import main

if __name__ == "__main__":
    main(["bench", *sys.argv[1:]], prog_name="fastccsa")
