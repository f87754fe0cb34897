"""Makes ``python -m fastccsa`` run the console script ``fastccsa``."""

from __future__ import annotations

from fastccsa.cli.main import main

if __name__ == "__main__":
    main(prog_name="fastccsa")
