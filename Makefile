# make help lists the verbs. Everything runs in .venv, which `install` makes; nothing needs to be run before.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# torch and torchvision are named together so that they fit each other.
TORCH ?= torch torchvision
DEMO ?= demo
BENCH_OUT ?= build/bench

.PHONY: help install test check kernels kernels-short robot mutants mutants-changed bench bench-tiny bench-compare gpu gpu-rehearsal demo hooks clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

install: $(VENV)/.installed  ## create .venv with everything

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit("seqdata needs Python 3.10 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 10) else None'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]' $(TORCH)
	@touch $@

test: install  ## the whole test suite
	$(BIN)/python -m pytest

check: install  ## lint, format, types, import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/mypy tests
	$(BIN)/lint-imports

robot: install  ## a fresh environment with the robot's packages alone makes a track from a pack
	PYTHONPATH=. $(BIN)/python tests/support/robot.py

kernels: install  ## tests of promised bits under other BLAS kernels and thread counts
	$(BIN)/python tests/support/kernels.py

kernels-short: install  ## the same under one other set of kernels, with one thread and with two: minutes
	$(BIN)/python tests/support/kernels.py --short

mutants: install  ## wrong code in every module that decides numbers or bytes: which tests notice (hours)
	$(BIN)/python tests/support/mutants.py

mutants-changed: install  ## the same for changed lines alone (BASE=commit, default origin/main), ten minutes at most
	$(BIN)/python tests/support/mutants.py --changed $(BASE) --minutes 10

bench: install  ## the measurements of tests/benchmarks, as tables; figures in BENCH_OUT as JSON
	@failed=0; for file in tests/benchmarks/bench_*.py; do echo "== $$file"; BENCH_OUT=$(BENCH_OUT) PYTHONPATH=. $(BIN)/python $$file || failed=1; done; exit $$failed

bench-tiny: install  ## every benchmark at a size of seconds, to see that it works
	@failed=0; for file in tests/benchmarks/bench_*.py; do echo "== $$file"; BENCH_SIZE=tiny BENCH_OUT=build/bench-tiny PYTHONPATH=. $(BIN)/python $$file || failed=1; done; exit $$failed

bench-compare: install  ## the figures of the last `make bench` beside tests/benchmarks/baseline.json
	$(BIN)/python tests/benchmarks/results.py $(BENCH_OUT)

gpu: install  ## every test and measurement that needs a CUDA card, in seven minutes; figures in build/gpu
	$(BIN)/python -m tests.gpu.run

gpu-rehearsal: install  ## the same script on the CPU at a size of seconds, to see that it works
	$(BIN)/python -m tests.gpu.run --rehearse --out build/gpu-rehearsal

demo: install  ## a synthetic city from raw dump to report (removes $(DEMO)/ first)
	@rm -rf $(DEMO)
	$(BIN)/seqdata demo --out $(DEMO)

hooks: install  ## run `make check` before every commit
	$(BIN)/pre-commit install

clean:  ## remove the environment, caches and the demo
	rm -rf $(VENV) $(DEMO) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
