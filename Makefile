# make help lists the verbs. Everything runs in .venv, which `install` and `dev` make; nothing needs to be run before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch and torchvision are named together so that they fit each other.
TORCH ?= torch torchvision
DEMO ?= demo
# Faults of each kind that `make faults` puts on each command.
FAULTS ?= 5
BENCH_OUT ?= build/bench
# Frames in `make scale`: 1.5 and 15 million where none are named.
FRAMES ?=

.PHONY: help install dev dist test check faults faults-mounts kernels kernels-short robot mutants mutants-changed bench bench-tiny bench-compare scale ray gpu gpu-rehearsal demo hooks clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## create .venv with what the program needs

# Also makes way for the distribution's former name, which would own the program's file twice.
$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("seqdata needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	@test -x $(BIN)/python || { echo "making the environment $(VENV)"; $(PYTHON) -m venv $(VENV); }
	@$(BIN)/python -m pip install --quiet --upgrade pip
	@$(BIN)/python -m pip uninstall --quiet --yes seqdata 2>/dev/null || true
	@echo "installing seqdata and its libraries into $(VENV): PyTorch with its CUDA libraries is most of 6 GB; minutes at first"
	$(BIN)/python -m pip install --constraint constraints.txt --editable . $(TORCH)
	@touch $@

dev: $(VENV)/.dev  ## the same with what tests and checks need

$(VENV)/.dev: $(VENV)/.installed
	@echo "installing what tests and checks need into $(VENV)"
	@$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' $(TORCH)
	@touch $@

test: dev  ## the whole test suite
	$(BIN)/python -m pytest

check: dev  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/lint-imports

dist: dev  ## wheel and source archive in dist/, checked, and tried in a fresh environment (6 GB, minutes)
	@rm -rf dist
	$(BIN)/python tests/support/dist.py dist

robot: dev  ## a fresh environment with the robot's packages alone makes a track from a pack
	PYTHONPATH=. $(BIN)/python tests/support/robot.py

kernels: dev  ## tests of promised bits under other BLAS kernels and thread counts
	$(BIN)/python tests/support/kernels.py

kernels-short: dev  ## the same under one other set of kernels, with one thread and with two: minutes
	$(BIN)/python tests/support/kernels.py --short

mutants: dev  ## wrong code in every module that decides numbers or bytes: which tests notice (hours)
	$(BIN)/python tests/support/mutants.py

mutants-changed: dev  ## the same for changed lines alone (BASE=commit, default origin/main), ten minutes at most
	$(BIN)/python tests/support/mutants.py --changed $(BASE) --minutes 10

bench: dev  ## the measurements of tests/benchmarks, as tables; figures in BENCH_OUT as JSON
	@failed=0; for file in tests/benchmarks/bench_*.py; do echo "== $$file"; BENCH_OUT=$(BENCH_OUT) PYTHONPATH=. $(BIN)/python $$file || failed=1; done; exit $$failed

bench-tiny: dev  ## every benchmark at a size of seconds, to see that it works
	@failed=0; for file in tests/benchmarks/bench_*.py; do echo "== $$file"; BENCH_SIZE=tiny BENCH_OUT=build/bench-tiny PYTHONPATH=. $(BIN)/python $$file || failed=1; done; exit $$failed

bench-compare: dev  ## the figures of the last `make bench` beside tests/benchmarks/baseline.json
	$(BIN)/python tests/benchmarks/results.py $(BENCH_OUT)

gpu: dev  ## every test and measurement that needs a CUDA card, in seven minutes; figures in build/gpu
	$(BIN)/python -m tests.gpu.run

gpu-rehearsal: dev  ## the same script on the CPU at a size of seconds, to see that it works
	$(BIN)/python -m tests.gpu.run --rehearse --out build/gpu-rehearsal

scale: dev  ## tables of 1.5 and 15 M frames without pixels: what each stage costs and how it grows (30 minutes, 10 GB of disk)
	$(BIN)/python -m tests.scale.run $(FRAMES) --out build/scale.json

ray: dev  ## build, describe, index and eval on a Ray cluster of two nodes, a worker of each killed
	PYTHONPATH=. $(BIN)/python tests/support/ray_nodes.py

demo: install  ## a synthetic city from raw dump to report (removes $(DEMO)/ first)
	@rm -rf $(DEMO)
	$(BIN)/seqdata demo --out $(DEMO)

faults: dev  ## every command under kills, damage, hostile files and bad servers, with a table of figures (hours; FAULTS=1: one)
	$(BIN)/python -m tests.faults.figures $(FAULTS)

faults-mounts: dev  ## the tests of faults that mount a small disk: as root, or in `unshare --map-root-user --mount make ...`
	$(BIN)/python -m pytest tests/faults -k in_earnest

hooks: dev  ## run `make check` before every commit
	$(BIN)/pre-commit install

clean:  ## remove the environment, caches and the demo
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
