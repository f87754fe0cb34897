# `make demo` trains and reports on rendered images; `make test` runs the suite. Both need Python 3.10+, g++ and make.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
BUILD_TOOLS := "setuptools>=77" wheel "cmake>=3.24" ninja "pybind11>=2.12"
# Everything the build reads; when one of these is newer than the installation, it is built and installed again.
SOURCES := $(shell find csrc cmake fastccsa -type f ! -name '*.so' ! -name '*.pyc' ! -name '_build_info.py' 2>/dev/null) \
           setup.py CMakeLists.txt pyproject.toml
# Torch with its CUDA libraries is most of it; the packages on their way in and the build take the rest.
DISK_GB ?= 12
.DEFAULT_GOAL := help
# Gigabytes come over a network: a connection that drops is taken up again.
export PIP_RETRIES ?= 10
export PIP_RESUME_RETRIES ?= 20
# Threads that wait sleep: spinning ones would starve whatever else runs on a shared machine.
export OMP_WAIT_POLICY ?= PASSIVE

.PHONY: help demo test develop lint docs compat wheel-check clean

help:
	@echo "make demo     render synthetic collections, train, evaluate and report"
	@echo "make test     run the test suite"
	@echo "make develop  build in place, for working on the package"
	@echo "make lint     ruff and mypy"
	@echo "make docs     build the documentation into build/docs, warnings as errors"
	@echo "make compat   run the tests of losses and sampler under the oldest torch, or TORCH=..., OTHER_PYTHON=..."
	@echo "make wheel-check  sdist and wheel, from which one installs and the other loads"
	@echo "make clean    remove the virtual environment and build folders"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "fastccsa needs Python 3.10 or later; set PYTHON=/path/to/one"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment; on Debian and Ubuntu: apt install python3-venv python3-dev"; exit 1; }
	$(BIN)/python -m pip install -q --upgrade pip

# torch is both what the build compiles against and what the package runs with: installed once, before the build.
# Looked at first, because pip takes a full disk for a broken connection.
$(VENV)/.torch: | $(BIN)/python
	@free=$$(df -Pk . | awk 'NR == 2 { print int($$4 / 1048576) }'); \
	  [ "$$free" -ge $(DISK_GB) ] || { \
	  echo "the installation needs $(DISK_GB) GB of disk, and $(CURDIR) has $$free left: free some," \
	  "or clone to another disk, or try all the same with DISK_GB=0"; exit 1; }
	$(BIN)/python -m pip install -q $(BUILD_TOOLS) "torch>=2.10" torchvision
	@touch $@

# The package index's nvcc, where the machine has none and CUDA is not refused.
$(VENV)/.nvcc: $(VENV)/.torch
	@if [ "$(FASTCCSA_CUDA)" != 0 ] && [ -z "$(CUDA_HOME)" ] && ! command -v nvcc >/dev/null; then \
	  echo "no nvcc on this machine: installing the package index's"; \
	  $(BIN)/python -m pip install -q "cuda-toolkit[nvcc,cudart,cccl]>=13,<14" || \
	  echo "it cannot be had: CPU code alone will be built"; fi
	@touch $@

$(VENV)/.installed: $(VENV)/.nvcc $(SOURCES)
	$(BIN)/python -m pip install -q --no-build-isolation ".[test]"
	@touch $@

demo: $(VENV)/.installed
	cd / && $(CURDIR)/$(BIN)/fastccsa demo --out $(CURDIR)/demo

# Not from the checkout: Python would find the folder fastccsa/ there before the installed package. A worker process takes
# up to 2 GB; each begins with tests that lie together, which share what they prepare, and then takes over from slower ones.
test: $(VENV)/.installed
	cd tests && $(CURDIR)/$(BIN)/pytest -n auto --maxprocesses 8 --dist worksteal $(PYTEST_ARGS)

develop: $(VENV)/.nvcc
	$(BIN)/python -m pip install -q --no-build-isolation -e ".[test]"

lint: $(VENV)/.installed
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

# The extra's requirements; the package itself is there.
$(VENV)/.docs: $(VENV)/.installed
	$(BIN)/python -m pip install -q "fastccsa[docs]"
	@touch $@

docs: $(VENV)/.docs
# Not --quiet: it also hides the warnings from --strict.
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

compat: $(VENV)/.installed
	tests/compat/run.sh $(or $(TORCH),2.10.0) $(OTHER_PYTHON)

wheel-check: $(VENV)/.installed
	tests/compat/wheel.sh

clean:
	rm -rf $(VENV) build dist *.egg-info fastccsa/*.so fastccsa/_build_info.py
