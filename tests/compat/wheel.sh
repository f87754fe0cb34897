#!/usr/bin/env bash
# What a release needs: an sdist that contains the sources and builds, and a wheel that needs no libraries but torch's and
# the C++ runtime, and no packages but torch, numpy and click. Called by `make wheel-check`. It builds with CUDA code if
# there is an nvcc and FASTCCSA_CUDA is not 0, and makes an environment of its own, with torch for the CPU (1 GB).
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$PWD/.venv/bin/python
"$python" -m pip install -q build auditwheel
rm -rf build/wheel
# The wheel is built from the sdist, as it is when users install from one.
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
archive = zipfile.ZipFile(wheel)
names = archive.namelist()
for needed in ("fastccsa/ops/libfastccsa.so", "fastccsa/py.typed", "fastccsa/sampling/_sampler.pyi"):
    sys.exit(f"the wheel lacks {needed}") if needed not in names else None
foreign = sorted({name.partition("/")[0] for name in names if not name.startswith(("fastccsa/", "fastccsa-"))})
sys.exit(f"the wheel contains {', '.join(foreign)}") if foreign else None
metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
core = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
unpacked = sum(file.file_size for file in archive.infolist())
print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.2f} MB, {unpacked / 1e6:.2f} MB unpacked")
print(*core, sep="\n")
sys.exit("the wheel requires more than torch, numpy and click") if len(core) != 3 else None
END

# The libraries it needs from outside; a repair would leave torch's out.
"$python" -m auditwheel show build/wheel/*.whl

# The checks of core.py, with the wheel and what it requires. pip must not see its requirement of torch: it would install
# NVIDIA's libraries as well.
core=$PWD/build/wheel/core
"$python" -m venv "$core"
"$core/bin/python" tests/compat/cpu_torch.py "$("$python" -c 'import torch; print(torch.__version__.partition("+")[0])')"
"$core/bin/python" -m pip install -q numpy click
"$core/bin/python" -m pip install -q --no-deps build/wheel/*.whl
(cd / && "$core/bin/python" "$OLDPWD/tests/compat/core.py")
rm -rf "$core"
