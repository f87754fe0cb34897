#!/usr/bin/env bash
# Runs the tests of the losses and the samplers with another release of torch, and optionally of Python:
# `tests/compat/run.sh TORCH [PYTHON]`, called by `make compat`. Its TORCH is 2.10.0, the oldest, by default.
#
# Without PYTHON the files installed in .venv are tested, which were built against the torch in .venv. The modules of the
# sampler and of the JPEG decoder work with only one version of Python, so another PYTHON gets its own build, without CUDA.
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
  "$python" -m pip install -q --no-warn-conflicts numpy scipy pytest pytest-xdist hypothesis
  touch "$other/.installed"
fi

packages=$PWD/build/compat/packages-$version-$torch
rm -rf "$packages"
mkdir -p "$packages"
if [ $# -lt 2 ]; then
  cp -r "$(cd / && "$base" -c 'import fastccsa; print(*fastccsa.__path__)')" "$packages/"
else
  "$python" -m pip install -q --no-warn-conflicts "setuptools>=77" wheel "cmake>=3.24" ninja "pybind11>=2.12"
  PATH=$other/bin:$PATH FASTCCSA_CUDA=0 "$python" -m pip install -q --no-deps --no-build-isolation --target "$packages" .
fi
export PYTHONPATH=$packages

cd tests
"$python" - <<'END'
import platform

import torch

import fastccsa
from fastccsa import _build_info
from fastccsa.images import _jpeg
from fastccsa.sampling import _sampler

print(f"Python {platform.python_version()}; built against torch {_build_info.TORCH_VERSION}, running under {torch.__version__}")
END
"$python" -m pytest -q -p no:cacheprovider -n auto losses sampling
