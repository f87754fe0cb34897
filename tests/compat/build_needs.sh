#!/usr/bin/env bash
# Installs what the build of a wheel needs in a manylinux container: `build_needs.sh [LABEL]`, called by cibuildwheel.
# LABEL is cpu for a build without CUDA code, cu128 and the like for a release of CUDA 12, and empty for CUDA 13.
set -euo pipefail
cd "$(dirname "$0")/../.."

python -m pip install -q "setuptools>=77" "cmake>=3.24" ninja
python tests/compat/cpu_torch.py 2.10.0
case ${1:-} in
  cpu) ;;
  "") python -m pip install -q "cuda-toolkit[nvcc,cudart,cccl]>=13,<14" ;;
  cu12?)  # The package index has no nvcc of CUDA 12; NVIDIA's repository for the container's Linux does.
    release=12-${1#cu12}
    arch=$(uname -m)
    [ "$arch" = x86_64 ] || arch=sbsa
    dnf config-manager --add-repo "https://developer.download.nvidia.com/compute/cuda/repos/rhel8/$arch/cuda-rhel8.repo"
    dnf install -y -q "cuda-nvcc-$release" "cuda-cudart-devel-$release" "cuda-cccl-$release"
    ln -sfn "/usr/local/cuda-12.${1#cu12}" /usr/local/cuda
    ln -sf /usr/local/cuda/bin/nvcc /usr/local/bin/nvcc
    ;;
  *) echo "build_needs.sh: unknown label $1; use cpu, cu128 or none" >&2; exit 1 ;;
esac
