#!/usr/bin/env bash
# Runs the tests of the losses and the samplers with another release of torch, and optionally of Python:
# `tests/compat/run.sh TORCH [PYTHON]`, called by `make compat`. Its TORCH is 2.10.0, the oldest, by default.
#
# What is tested was built once: the wheel in WHEEL, or else the files installed in .venv. It knows no version of Python,
# and works with every torch from 2.10 on.
set -euo pipefail
cd "$(dirname "$0")/../.."

torch=$1
base=${2:-$PWD/.venv/bin/python}
version=$("$base" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
other=$PWD/build/compat/python-$version-torch-$torch
python=$other/bin/python

if [ ! -e "$other/.installed" ]; then
  rm -rf "$other"
  "$base" -m venv "$other"
  "$python" tests/compat/cpu_torch.py "$torch"
  "$python" -m pip install -q --no-warn-conflicts numpy click scipy pytest pytest-xdist hypothesis
  touch "$other/.installed"
fi

packages=$PWD/build/compat/packages-$version-$torch
rm -rf "$packages"
mkdir -p "$packages"
if [ -n "${WHEEL:-}" ]; then
  # pip must not see the requirement of torch: it would install NVIDIA's libraries as well.
  "$python" -m pip install -q --no-deps --target "$packages" "$WHEEL"
else
  cp -r "$(cd / && "$OLDPWD/.venv/bin/python" -c 'import fastccsa; print(*fastccsa.__path__)')" "$packages/"
fi
export PYTHONPATH=$packages

cd tests
"$python" - <<'END'
import platform

import torch

import fastccsa
from fastccsa import _build_info

print(
    f"Python {platform.python_version()}, {fastccsa.__file__}: built against torch {_build_info.TORCH_VERSION}, "
    f"running under {torch.__version__}"
)
END
"$python" compat/core.py
"$python" -m pytest -q -p no:cacheprovider -n "${WORKERS:-auto}" losses sampling
