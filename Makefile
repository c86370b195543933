# Every job of the project in one place; the work is done by scripts/, CMake and pytest.
VENV ?= .venv
PRESET ?= release
JOBS ?= $(shell nproc)

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
export PATH := $(abspath $(VENV))/bin:$(PATH)
export VENV TEXT FILE
export HF_HUB_OFFLINE := 1
python := $(VENV)/bin/python
build := build/$(PRESET)

.PHONY: help setup build product demo test test-torch test-models test-architectures test-graphs bench fuzz lint format clean wheel asan tsan

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## */\1|/' | column -t -s '|'

setup:  ## install what is missing: system packages (apt), the virtual environment
	@scripts/setup.sh

build: setup  ## compile everything into build/release
	@scripts/build.sh $(PRESET)

product:  # what users get, without the tests and what only they need
	@scripts/setup.sh product build/release
	@scripts/build.sh release product

demo: product  ## compile, save, load and use a real sentence encoder (TEXT="..." or FILE=...)
	@$(python) scripts/demo.py

test: build  ## the C++ tests and the Python tests
	@scripts/test.sh $(PRESET)

test-torch: build wheel  ## the wheel with another torch: TORCH=2.14.1 (or newest), PYTHON=python3.12
	@scripts/test_torch.sh "$(TORCH)"

test-models: build  ## whole models in their default configurations, against eager PyTorch
	@$(python) -m pytest tests/python/models -m full_size

test-architectures: build  ## architectures of torch.nn, transformers, timm and diffusers in one engine each: docs/architectures.md
	@test -d build/architectures || $(python) -m pip install -q --no-deps --target build/architectures \
		-r scripts/requirements_architectures.txt
	@rm -f build/architectures.jsonl
	@failed=0; $(python) tests/architectures/sweep.py --out build/architectures.jsonl || failed=1; \
	$(python) tests/architectures/sweep.py --out build/architectures.jsonl --table docs/architectures.md; exit $$failed

test-graphs: build  ## random models against eager PyTorch (SEEDS=0:1000)
	@$(python) tests/random_graphs/sweep.py --seeds "$(or $(SEEDS),0:1000)"

bench: build  ## compare with eager, torch.compile, AOTInductor, onnxruntime and openvino
	@scripts/bench.sh

fuzz: setup  ## run every fuzz target for a minute each
	@scripts/fuzz.sh

lint: build  ## formatting, naming, include rules, sizes
	@$(python) scripts/lint.py --build $(build)

format: build  ## rewrite sources in the project's format, and docs/ops.md
	@$(python) scripts/lint.py --build $(build) --fix format ops_page

asan: setup  ## C++ tests with the address and undefined-behaviour sanitizers
	@scripts/build.sh asan && scripts/test.sh asan

tsan: setup  ## C++ tests with the thread sanitizer
	@scripts/build.sh tsan && scripts/test.sh tsan

wheel: setup  ## dist/torch_kiln-*.whl, for every Python 3, tried in a new environment (PYTHONS="python3.12 ..." for more)
	@rm -f dist/torch_kiln-*.whl
	@# The compiler's names of `make build`: ccache knows the objects by them.
	@CC=cc CXX=c++ $(python) -m pip wheel -q --no-deps --no-build-isolation -w dist .
	@$(python) scripts/check_wheel.py dist/torch_kiln-*.whl $(addprefix --python ,$(PYTHONS))

clean:  ## remove build/ and dist/
	rm -rf build dist
