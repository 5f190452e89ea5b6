# make setup | demo | test | check | format | docs | clean. Each target sets up what it needs by itself.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DELETE_ON_ERROR:
.PHONY: setup demo test check format docs clean

PYTHON ?= python3
EXTRAS := train,tune,dev
BIN := .venv/bin
READY := .venv/.ready
BASE_READY := .venv-base/.ready
NATIVE := CMakeLists.txt $(shell find native -name '*.?pp' -o -name '*.inc')
TOOLS := scikit-build-core nanobind cmake ninja
# --no-compile: compiling all of torch to bytecode takes longer than the parts that are imported.
INSTALL := -m pip install -qq --disable-pip-version-check --no-compile -c constraints.txt
# One build at a time: flock is on every Linux; elsewhere go without.
BUILD_LOCK := $(shell command -v flock >/dev/null && echo flock .venv/.lock)

# Data sets below KARUI_DATA are tested too where the variable is set.
MARKS := not gpu and not slow and not network$(if $(KARUI_DATA),, and not data)

setup: $(READY)

$(READY): pyproject.toml constraints.txt $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "karui: $(PYTHON) is missing or older than 3.11; install Python 3.11 or set PYTHON=" >&2; exit 1; }
	@command -v $${CXX:-c++} >/dev/null || command -v g++ >/dev/null || command -v clang++ >/dev/null || { \
	  echo "karui: no C++ compiler found; install one (g++ or clang++) or set CXX" >&2; exit 1; }
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv .venv
	@echo "setting up .venv ..."
	@$(BUILD_LOCK) $(BIN)/python $(INSTALL) $(TOOLS)
	@$(BUILD_LOCK) $(BIN)/python $(INSTALL) --no-build-isolation -e '.[$(EXTRAS)]'
	@touch $@

# The base install alone: the wheel of this checkout with numpy and typer, no torch.
$(BASE_READY): $(READY) $(shell find src -name '*.py')
	@[ -x .venv-base/bin/python ] || $(PYTHON) -m venv .venv-base
	@echo "setting up .venv-base ..."
	@rm -rf build/base && mkdir -p build/base
	@$(BUILD_LOCK) $(BIN)/python -m pip wheel -qq --no-build-isolation --no-deps -w build/base .
	@.venv-base/bin/python $(INSTALL) --force-reinstall --no-deps build/base/karui-*.whl
	@.venv-base/bin/python $(INSTALL) karui
	@touch $@

demo: $(READY)
	@# --resume: a demonstration that was stopped goes on, a finished one only prints its table
	$(BIN)/karui train classify --data stdlib-docs --out runs/demo-dense --set train.patience=3 --resume
	$(BIN)/karui train classify --data stdlib-docs --sparse vd --out runs/demo --resume
	$(BIN)/karui compact runs/demo-dense -o runs/demo-dense/model.karui
	$(BIN)/karui compact runs/demo -o runs/demo/model.karui --max-bytes 25kB
	$(BIN)/karui report runs/demo --dense runs/demo-dense
	@echo "the page: runs/demo/report.html"

test: $(READY) $(BASE_READY)
	@KARUI_BASE_PYTHON=$(CURDIR)/.venv-base/bin/python OMP_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -q -rs -n 2 --dist loadfile -m '$(MARKS)'

check: $(READY)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/python tools/make_cli_pages.py --check
	$(BIN)/karui report --results results --readme README.md --pages docs --check >/dev/null
	$(BIN)/python -m pytest -q tests/test_house.py tests/test_arrows.py

format: $(READY)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(READY)
	$(BIN)/python tools/make_cli_pages.py
	$(BIN)/karui report --results results --readme README.md --pages docs >/dev/null

clean:
	rm -rf .venv .venv-base build dist runs .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -prune -exec rm -rf {} +
