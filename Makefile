# make demo | test | check; each installs what it needs into .venv once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Two test processes by default: what a small CI machine has. `make test JOBS=0` runs them in one.
JOBS ?= 2
export TF_CPP_MIN_LOG_LEVEL ?= 2

.PHONY: install demo test check lint system-packages clean

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tfkd needs Python 3.11 or newer. Found: " + sys.version)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: install
	$(BIN)/tfkd run recipes/digits.toml

system-packages: install
	@$(BIN)/python tools/system_packages.py

test: install system-packages
	$(BIN)/python -m pytest -n $(JOBS) --dist loadfile $(PYTEST_ARGS)

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy

check: lint test
	$(BIN)/python -m pytest --doctest-modules tfkd -q

clean:
	rm -rf $(VENV) build dist *.egg-info
