# make demo | test | check; each installs what it needs into .venv once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Two test processes by default: what a small CI machine has. `make test JOBS=0` runs them in one.
JOBS ?= 2

.PHONY: install demo test doctest check lint system-packages clean
# `check` goes from the quick to the slow, with pytest's closing line last, whatever -j says.
.NOTPARALLEL:

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tfkd needs Python 3.11 or newer. Found: " + sys.version)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv is missing. Install it: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,mcu]'
	@touch $@

demo: install
	$(BIN)/tfkd run recipes/digits.toml

system-packages: install
	@$(BIN)/python tools/system_packages.py

test: install system-packages
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

doctest: install
	$(BIN)/python -m pytest -q --doctest-modules tfkd

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint doctest test

clean:
	rm -rf $(VENV) build dist *.egg-info
