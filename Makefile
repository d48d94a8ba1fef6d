# Two commands do everything: `make demo` and `make test`. Both make .venv first.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Real data sets, where they are at hand; what needs them is skipped or said to be not measured.
export DEMUR_SHARED_DATA ?= $(realpath ../shared/data)
TORCH := $(shell sed -n 's/^torch==//p' constraints.txt)

.PHONY: demo test studies benchmarks clean

demo: $(VENV)/.ready
	$(BIN)/demur demo --out runs/demo

test: $(VENV)/.ready-dev
	$(BIN)/ruff check . && $(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadgroup

studies: $(VENV)/.ready-dev
	$(BIN)/demur studies run --json results/studies/ ; code=$$?; $(BIN)/demur studies report; exit $$code

benchmarks: $(VENV)/.ready-dev
	$(BIN)/python -m benchmarks

# Without a GPU the CPU build of torch is taken: as a local wheel, through uv, or else whatever pip finds.
$(VENV)/.torch: constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "demur needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	if command -v nvidia-smi >/dev/null; then $(BIN)/pip install -q torch==$(TORCH); else \
	  $(BIN)/pip install -q torch==$(TORCH)+cpu 2>/dev/null \
	  || { $(BIN)/pip install -q uv && $(BIN)/uv pip install -q --python $(BIN)/python --torch-backend cpu torch==$(TORCH); } \
	  || $(BIN)/pip install -q torch==$(TORCH); fi
	touch $@

$(VENV)/.ready: $(VENV)/.torch pyproject.toml
	$(BIN)/pip install -q -c constraints.txt -e .
	touch $@

$(VENV)/.ready-dev: $(VENV)/.ready
	$(BIN)/pip install -q -c constraints.txt -e '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build src/*.egg-info
