#!/usr/bin/env bash
# Everything that needs a GPU, as a list that may be cut off anywhere: what has never run on a GPU comes first, and each
# step has a time limit, prints its outcome at once and writes its results by itself. The core takes at most 240 s; the
# other steps follow as far as the budget reaches. A step that fails does not stop the others.
#
# The libraries in the checkout are used if they run on this GPU, and otherwise built for it only (so rebuild afterwards
# for other GPUs). Libraries built from older sources also run: delete them, or set BUILD=1.
#
#   benchmarks/gpu_session.sh             run
#   benchmarks/gpu_session.sh --dry-run   only list the steps
#
# Environment:
#   OUT              folder for the results (default: benchmarks/results)
#   BUDGET           total seconds (default: 570)
#   BUILD            1: build in any case
#   PYTHON           the interpreter that has torch >= 2.10 (default: python3)
#   WHEELS           folder of wheels to install first, and of .tar.xz archives of packages to unpack beside them, for
#                    machines without a network (default: .whl, if it exists)
#   FASTCCSA_COMMIT  the commit, where the checkout has no .git
set -uo pipefail
cd "$(dirname "$0")/.."

PYTHON=${PYTHON:-python3}
OUT=${OUT:-benchmarks/results}
BUDGET=${BUDGET:-570}
BUILD=${BUILD:-0}
WHEELS=${WHEELS:-.whl}
DRY_RUN=false
case "${1:-}" in
  "") ;;
  --dry-run) DRY_RUN=true ;;
  *) echo "gpu_session: unknown argument '$1'; the only one is --dry-run" >&2; exit 2 ;;
esac

export PYTHONUNBUFFERED=1
SITE=$(mktemp -d)
WORK=$(mktemp -d)
trap 'rm -rf "$SITE" "$WORK"' EXIT
export PYTHONPATH="$PWD:$SITE${PYTHONPATH:+:$PYTHONPATH}"

summary=()
failures=0
group=core

remaining() { echo $((BUDGET - SECONDS)); }

note() {  # note NAME OUTCOME
  local line
  line=$(printf '%-28s %s' "$1" "$2")
  summary+=("$line")
  echo "== $SECONDS s: $line"
}

# step NAME LIMIT COMMAND...: run it for at most LIMIT seconds, or what is left of the budget.
step() {
  local name=$1 limit=$2 status start=$SECONDS
  shift 2
  if $DRY_RUN; then
    printf '%-28s %-5s at most %3d s: %s\n' "$name" "$group" "$limit" "$*"
    return 0
  fi
  (( $(remaining) < limit )) && limit=$(remaining)
  if (( limit < 5 )); then
    note "$name" "skipped: the $BUDGET seconds are over"
    return 1
  fi
  echo
  echo "==== $name (at most $limit s): $*"
  timeout --kill-after=10 "$limit" "$@"
  status=$?
  local took="$((SECONDS - start)) s"
  case $status in
    0) note "$name" "passed, $took" ;;
    5) [[ "$*" == *pytest* ]] && note "$name" "skipped: no such tests" || { note "$name" "FAILED (status 5), $took"; failures=$((failures + 1)); } ;;
    124 | 137) note "$name" "STOPPED at its limit, $took"; failures=$((failures + 1)) ;;
    *) note "$name" "FAILED (status $status), $took"; failures=$((failures + 1)) ;;
  esac
  return $status
}

skip() {  # skip NAME REASON
  if $DRY_RUN; then printf '%-28s %-5s would be skipped: %s\n' "$1" "$group" "$2"; else note "$1" "skipped: $2"; fi
}

finish() {
  $DRY_RUN && exit 0
  echo
  echo "==== $MACHINE, compute capability $CAPABILITY, commit ${FASTCCSA_COMMIT:-not known}, $SECONDS s"
  printf '%s\n' "${summary[@]}"
  exec >&- 2>&-  # so that tee, which writes the log, ends
  wait "$LOG"
  exit $((failures > 0))
}

# with MODULE NAME LIMIT COMMAND...: a step that needs a Python module.
with() {
  local module=$1
  shift
  if $DRY_RUN || has_module "$module"; then step "$@"; else skip "$1" "$module is not installed"; fi
}

# sanitized NAME LIMIT TOOL [PART]: calls of the kernels under compute-sanitizer.
sanitized() {
  if $DRY_RUN || command -v compute-sanitizer >/dev/null; then
    step "$1" "$2" "${SANITIZER[@]}" --tool "$3" "$PYTHON" tests/losses/gpu_calls.py "${@:4}"
  else
    skip "$1" "no compute-sanitizer"
  fi
}

has_module() { "$PYTHON" -c "import $1" 2>/dev/null; }

# ---- is there a GPU? ----

gpu=$("$PYTHON" - <<'EOF'
try:
    import torch
except ImportError:
    raise SystemExit("gpu_session: this Python has no torch; set PYTHON to one that has")
if not torch.cuda.is_available():
    raise SystemExit("gpu_session: torch sees no GPU here, and everything in this session needs one")
name = torch.cuda.get_device_name().lower().replace(" ", "-")
name = "".join(c for c in name if c.isalnum() or c in "-_.")
print(name, "%d.%d" % torch.cuda.get_device_capability(), torch.cuda.device_count())
EOF
)
if [[ -z $gpu ]]; then
  $DRY_RUN || exit 1
  gpu="no-gpu 9.0 2"  # lists the steps as for this GPU
fi
read -r MACHINE CAPABILITY GPUS <<<"$gpu"

# ---- what the machine has ----

if ! $DRY_RUN; then
  mkdir -p "$OUT"
  exec > >(tee "$OUT/gpu_session-$MACHINE.log") 2>&1
  LOG=$!
  nvidia-smi || true
  if compgen -G "$WHEELS/*.whl" >/dev/null; then
    "$PYTHON" -m pip install -q --no-index --no-deps --no-compile --target "$SITE" "$WHEELS"/*.whl || true
  fi
  for archive in "$WHEELS"/*.tar.xz; do
    [[ ! -f $archive ]] || tar -xf "$archive" -C "$SITE" || true
  done
  for module in torch numpy pytest pytest_benchmark click rich tqdm matplotlib; do
    has_module "$module" || echo "gpu_session: $module is missing; carry its wheel in WHEELS"
  done
fi
if [[ -z ${FASTCCSA_COMMIT:-} ]] && git rev-parse HEAD >/dev/null 2>&1; then
  FASTCCSA_COMMIT=$(git rev-parse HEAD)
  [[ -z $(git status --porcelain --untracked-files=no -- fastccsa csrc) ]] || FASTCCSA_COMMIT+="+changes"
fi
export FASTCCSA_COMMIT=${FASTCCSA_COMMIT:-}

# ---- a library that runs here ----

what_a_build_needs() {
  has_module setuptools || echo "gpu_session: setuptools is missing; carry its wheel in WHEELS"
  "$PYTHON" -c 'import setuptools, sys; sys.exit(int(setuptools.__version__.split(".")[0]) < 77)' ||
    echo "gpu_session: setuptools is older than 77, which the build needs; carry its wheel in WHEELS"
  for tool in cmake ninja nvcc; do
    command -v "$tool" >/dev/null || echo "gpu_session: $tool is not on PATH"
  done
}

group=build
if ! $DRY_RUN && [[ $BUILD != 1 ]] && timeout 60 "$PYTHON" -m benchmarks.gpu_probe --fits; then
  note "build" "skipped: the library in the checkout runs on this GPU"
else
  $DRY_RUN || what_a_build_needs
  if ! step "build" 240 env FASTCCSA_CUDA=1 TORCH_CUDA_ARCH_LIST="$CAPABILITY" \
    "$PYTHON" setup.py build_ext --inplace --build-temp build/gpu_session; then
    failures=1
    note "everything else" "skipped: nothing was built"
    finish
  fi
fi

# ---- the core ----

TEST=("$PYTHON" -m pytest -q -m cuda -p no:cacheprovider)
$DRY_RUN || ! has_module xdist || TEST+=(-n 8)
PROBE=("$PYTHON" -m benchmarks.gpu_probe --out "$OUT/probe-$MACHINE.jsonl")
BENCH=("$PYTHON" -m benchmarks zipped --device cuda --machine "$MACHINE")
ALL_PAIRS=("$PYTHON" -m benchmarks all-pairs --device cuda --machine "$MACHINE")
EPOCH=("$PYTHON" -m benchmarks epoch --device cuda)
STEP=("$PYTHON" -m benchmarks step --machine "$MACHINE" --device cuda --cache gpu --rounds 3 --steps 20
  --manifest "$WORK/demo/images/manifest.csv")
SANITIZER=(env PYTORCH_NO_CUDA_MEMORY_CACHING=1 compute-sanitizer --kernel-name kns=fastccsa --error-exitcode 9
  --launch-timeout 60 --print-limit 20)

group=core
step "probe, all pairs" 40 "${PROBE[@]}" errors all-pairs
step "tests of all pairs" 45 "${TEST[@]}" tests/losses/all_pairs
sanitized "memcheck, all pairs" 40 memcheck all-pairs
with nvidia.dali "tests of DALI" 40 "${TEST[@]}" tests/images/test_dali_gpu.py
with nvidia.dali "probe, images" 35 "$PYTHON" -m benchmarks.gpu_images --seconds 28 --out "$OUT/images-$MACHINE.jsonl"
with pandas "epoch, A and K, 112 px" 40 "${EPOCH[@]}" --sizes 112 --epochs 8 --baseline-epochs 16 \
  --out "$OUT/epoch-112-$MACHINE.json"

# ---- the rest ----

group=rest
if (( GPUS >= 2 )); then
  # One after another: each test takes two GPUs or more.
  step "tests of several GPUs" 120 "$PYTHON" -m pytest -q -m cuda -k nccl -p no:cacheprovider \
    tests/training tests/images/test_sharded.py tests/losses/all_pairs tests/examples
else
  skip "tests of several GPUs" "there is one GPU"
fi
with pandas "tests of the augmentation" 60 "${TEST[@]}" tests/images/test_augment.py
with pandas "benchmark, augmentation" 20 "$PYTHON" -m benchmarks augment --device cuda --seconds 0.4 \
  --dtype float32 --dtype bfloat16 --machine "$MACHINE" --out "$OUT/augment-$MACHINE.json"
with pandas "tests of training" 120 "${TEST[@]}" tests/training tests/evaluation tests/runs tests/experiments \
  tests/system tests/examples tests/benchmarks
step "probe, float32" 25 "${PROBE[@]}" float32
sanitized "racecheck, all pairs" 60 racecheck all-pairs
step "probe, other widths" 20 "${PROBE[@]}" wide
step "probe, zipped" 20 "${PROBE[@]}" zipped
step "probe, profile" 15 "${PROBE[@]}" profile
with pandas "epoch, A and K, 224 px" 70 "${EPOCH[@]}" --sizes 224 --epochs 6 --baseline-epochs 12 \
  --out "$OUT/epoch-224-$MACHINE.json"
step "rivals, all pairs" 90 "$PYTHON" -m benchmarks.gpu_rivals --out "$OUT/rivals-$MACHINE.jsonl"
# The steps and runs below use the demo's images. It trains A, E and K.
with pandas "demo" 60 "$PYTHON" -m fastccsa demo --device cuda --images 600 --seeds 1 --epochs 3 --out "$WORK/demo"
with nvidia.dali "benchmark, images" 60 "$PYTHON" -m benchmarks images --device cuda --machine "$MACHINE" \
  --shape 3000x2000 --files 64 --rounds 3 --seconds 1 --out "$OUT/images-$MACHINE.json"
for size in 64 112 224; do
  for pairs in 32 256; do
    with pandas "step, $size px, $pairs pairs" 45 "${STEP[@]}" --size "$size" --pairs "$pairs" --cuda-graph \
      --out "$OUT/step-$size-$pairs-$MACHINE.json"
  done
done
with pandas "epoch, 112 px" 45 "$PYTHON" -m fastccsa train --manifest "$WORK/demo/images/manifest.csv" \
  --out "$WORK/epoch" --n-sec 0 --alignment - --weights none --size 112 --epochs 2 --device cuda --cache gpu --cuda-graph
with pandas "A and K, 112 px" 90 "$PYTHON" -m fastccsa experiment K --manifest "$WORK/demo/images/manifest.csv" \
  --out "$WORK/runs" --scale tiny,size=112,epochs=4 --device cuda
sanitized "memcheck" 75 memcheck
sanitized "racecheck" 75 racecheck
step "tests of the loss" 120 "${TEST[@]}" tests/losses --ignore tests/losses/all_pairs
with nvidia.dali "tests of the pipeline" 60 "${TEST[@]}" tests/images --ignore tests/images/test_augment.py \
  --ignore tests/images/test_dali_gpu.py
with pandas "step, compiled" 75 "${STEP[@]}" --size 224 --pairs 256 --cuda-graph --compile --no-plain \
  --out "$OUT/step-224-256-compiled-$MACHINE.json"
with pandas "step, graph of one" 45 "${STEP[@]}" --size 112 --pairs 32 --cuda-graph --graph-steps 1 --no-plain \
  --out "$OUT/step-112-32-graph-of-one-$MACHINE.json"
with pandas "step, no graph" 45 "${STEP[@]}" --size 224 --pairs 32 --no-plain --out "$OUT/step-224-32-no-graph-$MACHINE.json"
with pandas "pruning" 60 "$PYTHON" -m fastccsa prune --run "$WORK/demo/runs/ccsa/seed0" --rate 0.3 --epochs 1 \
  --images 128 --device cuda --out "$WORK/pruned"
step "errors, all pairs" 60 "${ALL_PAIRS[@]}" --hard --out "$OUT/all-pairs-hard-$MACHINE.json"
step "benchmark, zipped" 120 "${BENCH[@]}" --seconds 1 -n 32 -n 262144 --dtype float32 --dtype bfloat16 \
  --out "$OUT/zipped-$MACHINE.json"
step "benchmark, all pairs" 90 "${ALL_PAIRS[@]}" --seconds 1 -n 16384 -n 65536 --out "$OUT/all-pairs-$MACHINE.json"
step "benchmark, few pairs" 60 "${ALL_PAIRS[@]}" --seconds 1 -n 32 -n 128 -n 256 -n 512 -n 1024 -n 2048 \
  --labels uniform --out "$OUT/all-pairs-small-$MACHINE.json"
step "benchmark, memory" 45 "${ALL_PAIRS[@]}" --seconds 1 --memory 65536 -d 128 -d 512 --labels uniform \
  --out "$OUT/all-pairs-memory-$MACHINE.json"
# The margin is for the cell in progress, which is always finished.
left=$(($(remaining) - 60))
(( left > 0 )) || left=0
minutes=$(printf '%d.%02d' $((left / 60)) $((left % 60 * 100 / 60)))
step "benchmark, sweep" 600 "${BENCH[@]}" --seconds 1 --full --minutes "$minutes" \
  --rival "eager PyTorch" --rival torch.compile --rival "torch.compile, small graphs" \
  --out "$OUT/zipped-$MACHINE-sweep.json"
finish
