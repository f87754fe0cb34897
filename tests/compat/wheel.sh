#!/usr/bin/env bash
# What a release needs: an sdist that holds the sources and builds, and a wheel that loads elsewhere and needs no
# library but torch's and the C++ runtime. Called by `make wheel-check`; takes a build, with CUDA unless FASTCCSA_CUDA=0.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$PWD/.venv/bin/python
"$python" -m pip install -q build auditwheel
rm -rf build/wheel
# The wheel is built from the sdist, as users' installations are.
"$python" -m build --no-isolation --skip-dependency-check --outdir build/wheel .

"$python" - <<'END'
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

(sdist,), (wheel,) = Path("build/wheel").glob("*.tar.gz"), Path("build/wheel").glob("*.whl")
inside = {name.partition("/")[2] for name in tarfile.open(sdist).getnames()}
tracked = subprocess.run(["git", "ls-files", "csrc", "cmake", "fastccsa"], capture_output=True, text=True).stdout.split()
missing = sorted({"CMakeLists.txt", "setup.py", "README.md", "LICENSE", *tracked} - inside)
sys.exit(f"the sdist lacks {', '.join(missing)}") if missing else print(f"{sdist.name}: complete")
names = zipfile.ZipFile(wheel).namelist()
for needed in ("fastccsa/libfastccsa.so", "fastccsa/py.typed", "fastccsa/sampling/_sampler.pyi"):
    sys.exit(f"the wheel lacks {needed}") if needed not in names else None
print(f"{wheel.name}: {len(names)} files")
END

# Libraries it needs from outside, torch's left out as a repair would.
"$python" -m auditwheel show build/wheel/*.whl
site=build/wheel/site
"$python" -m pip install -q --no-deps --target "$site" build/wheel/*.whl
(cd / && PYTHONPATH="$OLDPWD/$site" "$python" -c 'import fastccsa, torch
print(fastccsa.__path__[0]); print(fastccsa.WeightedCCSALoss()(*torch.zeros(4, 8, 7), *torch.zeros(2, 8).long()))')
