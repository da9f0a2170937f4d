# Each target sets up all it needs in .venv; nothing outside this folder is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# What is imported is compiled when it is, and kept: tests and benchmarks start some thousand interpreters.
export PYTHONDONTWRITEBYTECODE :=
INSTALL := $(BIN)/pip install --quiet --disable-pip-version-check --no-compile

.PHONY: help demo test lint bench soak clean

help:
	@echo "make demo    two workers, four programs at once, and what the workers did"
	@echo "make test    all checks and tests"
	@echo "make bench   measurements, also beside other pools (half an hour; with BENCH=--quick, three minutes)"
	@echo "make soak    ten minutes of random kills, stops, interrupts and restarts"
	@echo "make clean   remove what the others made here"

demo: $(VENV)/run
	@$(BIN)/python examples/demo.py

test: $(VENV)/dev lint
	$(BIN)/pytest -n 4 --dist worksteal

lint: $(VENV)/dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/peers
	$(BIN)/python -m benchmarks.peers $(BENCH)
ifeq (,$(filter --quick,$(BENCH)))
	$(BIN)/python benchmarks/backends.py
	$(BIN)/python benchmarks/path.py
	$(BIN)/python benchmarks/startup.py
	-$(BIN)/python benchmarks/recording.py
	-$(BIN)/python benchmarks/long_profile.py
	-$(BIN)/python benchmarks/live_page.py
endif

soak: $(VENV)/dev
	$(BIN)/python benchmarks/soak.py

clean:
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: Python 3.10 or newer is needed: name it, as in 'make PYTHON=python3.12 $(MAKECMDGOALS)'" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: this Python cannot make virtual environments: install python3-venv" \
	    "(on Debian and Ubuntu: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
# One that came with an older Python takes twice as long for all that follows.
	$(INSTALL) --upgrade pip
	@touch $@

$(VENV)/run: requirements.txt $(VENV)/made
	$(INSTALL) -r requirements.txt
	@touch $@

$(VENV)/dev: pyproject.toml requirements.txt $(VENV)/made
	$(INSTALL) --editable '.[dev]'
	@touch $@

$(VENV)/peers: $(VENV)/dev
	@$(INSTALL) --editable '.[peers]' || \
	  { echo "make: Ray does not install for this Python: measuring without it" >&2; \
	    $(INSTALL) --editable '.[peers-without-ray]'; }
	@touch $@
