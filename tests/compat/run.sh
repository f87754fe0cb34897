#!/usr/bin/env bash
# One build, two releases of torch: what is installed in .venv, built against its torch, passes the tests of the losses
# and of the memory under another one. `tests/compat/run.sh [TORCH]`, 2.13.0 unless told; called by `make compat`.
set -euo pipefail
cd "$(dirname "$0")/../.."

torch=${1:-2.13.0}
python=$PWD/.venv/bin/python
other=$PWD/build/compat/torch-$torch
package=$(cd / && "$python" -c 'import fastccsa; print(*fastccsa.__path__)')

if [ ! -e "$other/.installed" ]; then
  rm -rf "$other"
  "$python" -m venv "$other"
  "$other/bin/python" -m pip install -q "torch==$torch" numpy scipy pytest pytest-xdist hypothesis
  touch "$other/.installed"
fi
# The very files of the installation, with nothing else that .venv has.
rm -rf build/compat/package
mkdir -p build/compat/package
cp -r "$package" build/compat/package/
export PYTHONPATH=$PWD/build/compat/package

cd tests
"$other/bin/python" - <<'END'
import torch
from fastccsa import _build_info
print(f"built against torch {_build_info.TORCH_VERSION}, running under torch {torch.__version__}")
END
"$other/bin/python" -m pytest -q -p no:cacheprovider -n auto loss allpairs sampling/test_inverse_probability.py
