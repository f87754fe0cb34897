#!/usr/bin/env bash
# Builds the wheel twice, in folders of different names and at different times, and compares the files byte by byte.
# Called by `make reproducible`.
set -euo pipefail
cd "$(dirname "$0")/../.."

python=$PWD/.venv/bin/python
"$python" -m pip install -q build
SOURCE_DATE_EPOCH=$(git log -1 --format=%ct)  # the time that the wheel gives its files
export SOURCE_DATE_EPOCH
rm -rf build/reproducible
for copy in first the-second; do
  folder=$PWD/build/reproducible/$copy
  mkdir -p "$folder"
  git archive HEAD | tar -x -C "$folder"
  (cd "$folder" && "$python" -m build --wheel --no-isolation --skip-dependency-check --outdir "$folder/dist" . >"$folder/log" 2>&1) ||
    { tail -n 30 "$folder/log"; exit 1; }
done
cd build/reproducible
sha256sum ./*/dist/*.whl
cmp first/dist/*.whl the-second/dist/*.whl
echo "two builds, the same bytes"
