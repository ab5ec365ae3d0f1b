# `make help` lists the targets. Each of them installs the Python packages that it needs into .venv, once.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PYTEST_ARGS ?=
# Test processes, one more than cores, since some tests wait. `make test JOBS=0` runs all tests in one process.
JOBS ?= 3
# One worker runs a whole file, since the fixtures of a file are expensive; files with slow tests start first.
PYTEST := $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder --durations-min 1
LOWEST_PYTHON ?= python3.11
# Rooms whose tests cover what depends on the versions of TensorFlow and Keras, without compilers or devices.
LOWEST_TESTS ?= tests/_internal tests/models tests/losses tests/distillation tests/conversion

.PHONY: help install demo demo-tasks system-packages test test-all test-lowest coverage lint format doctest docs check dist clean
# Targets run in the given order, whatever -j says: `check` goes from quick to slow and ends with pytest's closing line.
.NOTPARALLEL:

help:
	@echo 'make demo             run recipes/digits.toml and print the path of its report'
	@echo 'make demo-tasks       run each recipe in recipes/tasks/, up to 5 minutes each'
	@echo 'make system-packages  install the system tools that some tests need (Debian, Ubuntu; asks for root)'
	@echo 'make test             run the tests; a test whose tool is missing is skipped and names it'
	@echo 'make test-all         run the tests and the long random campaigns'
	@echo 'make test-lowest      run the core tests with the oldest supported packages'
	@echo 'make coverage         run the tests and measure the coverage, child processes included'
	@echo 'make lint             check style, format, types, wording and workflows'
	@echo 'make format           format the code'
	@echo 'make doctest          run the examples in docstrings'
	@echo 'make docs             build the documentation into build/docs'
	@echo 'make check            lint, doctest and test'
	@echo 'make dist             build sdist and wheel into dist/ and check them'
	@echo 'make clean            remove .venv and build products'

install: $(VENV)/installed

$(VENV)/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "tfkd needs Python 3.11 or newer, found " + sys.version)'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "Python's venv is missing. Install it: sudo apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev,docs,mcu,mlflow,npu,tfds]'
	@touch $@

demo: install
	$(BIN)/tfkd run recipes/digits.toml

demo-tasks: install
	@for recipe in recipes/tasks/*.toml; do echo "$$recipe"; $(BIN)/tfkd run "$$recipe" || exit 1; done

system-packages: install
	$(BIN)/python tools/system_packages.py

test: install
	$(PYTEST) --durations 10 $(PYTEST_ARGS)

test-all: install
	@echo 'The campaigns come on top of the tests, which take about 13 minutes on 2 cores.'
	$(PYTEST) --durations 25 -m '' $(PYTEST_ARGS)

test-lowest: $(VENV)-lowest/installed
	$(VENV)-lowest/bin/python -m pytest --durations 10 --durations-min 1 -p no:cacheprovider $(LOWEST_TESTS) $(PYTEST_ARGS)

$(VENV)-lowest/installed: pyproject.toml constraints-lowest.txt
	$(LOWEST_PYTHON) -m venv $(VENV)-lowest
	$(VENV)-lowest/bin/python -m pip install --quiet --disable-pip-version-check -c constraints-lowest.txt -e '.[dev,mcu]'
	@touch $@

coverage: install
	$(BIN)/python -m coverage erase
	$(BIN)/python -m coverage run -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)
	$(BIN)/python -m coverage combine --quiet
	$(BIN)/python -m coverage report

doctest: install
	$(BIN)/python -m pytest -q --doctest-modules tfkd

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python tools/check_words.py
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs build/docs

check: lint doctest test

dist: install
	rm -rf build dist
	$(BIN)/python -m build
	$(BIN)/python -m twine check --strict dist/*

clean:
	rm -rf $(VENV) $(VENV)-lowest build dist *.egg-info .coverage .coverage.*
