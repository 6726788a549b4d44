# FakeGAN: `make train` and `make test` need nothing but Python 3.10 or newer and make.
VENV ?= .venv
PYTHON ?= python3
ARGS ?=
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
PYTEST = OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses=4 --dist worksteal
COMMAND ?= model=autogan4 pipeline=recon_classify

# glibc keeps freed memory for the next step instead of returning it to the system: some 10% of a step on a CPU.
export MALLOC_MMAP_MAX_ ?= 0
export MALLOC_TRIM_THRESHOLD_ ?= 10000000000

.DEFAULT_GOAL := help
.PHONY: help install train test test-slow test-gpu test-slurm test-all lint bench tensorboard clean

help:  ## this list
	@grep -E '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | awk -F'|' '{printf "make %-12s %s\n", $$1, $$2}'

install: $(INSTALLED)  ## a virtual environment with everything (about 5.5 GB); a second call does nothing

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
		{ echo "error: $(PYTHON) is older than 3.10; name a newer one: make install PYTHON=python3.12"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) || \
		{ echo "error: $(PYTHON) cannot make a virtual environment; on Debian: apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[plots,optuna,export,serve,slurm,wandb,mlflow,dev]'
	@touch $@

train: install  ## the main job on the built-in faces; your own: make train ARGS="data=faces data.root=data/faces"
	$(BIN)/python train.py $(COMMAND) $(ARGS)

test: install  ## the fast tests
	$(PYTEST) -m "not slow and not gpu and not slurm" $(ARGS)

test-slow: install  ## the slow tests: whole runs, kill and resume
	$(PYTEST) -m "slow and not gpu and not slurm" $(ARGS)

test-gpu: install  ## the tests of a CUDA device; they skip themselves where there is none
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m gpu tests/gpu $(ARGS)

test-slurm: install  ## trials on a real SLURM: the one that is here, else one in a folder (root, and SLURM_TRIAL_INSTALL=1)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slurm tests/slurm $(ARGS)

test-all: install  ## all tests but test-slurm's: whole runs too; those for a GPU skip themselves where there is none
	$(PYTEST) -m "not slurm" $(ARGS)

lint: install  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: install  ## benchmarks: ratios measured side by side, written to docs/benchmarks.md
	$(BIN)/python -m tests.benchmarks $(ARGS)

tensorboard: install  ## every run in a browser, on this machine only
	$(BIN)/tensorboard --logdir outputs --host 127.0.0.1 $(ARGS)

clean:  ## remove runs, artifacts, built-in faces and caches; never the faces that you prepared
	rm -rf outputs artifacts data/demo-* data/.demo-* .pytest_cache .mypy_cache .ruff_cache
