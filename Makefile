# make demo    the post's figures on the embedded model: report/index.html
# make test    lint, types and all tests
# make docs    the documentation, warnings are errors: site/index.html
# make compat  the core tests with older and newer dependencies: docs/how-to/versions.md
# make bench   every claim of speed and memory, measured here: benchmarks/README.md
# make format  rewrite the sources in the project's style
#
# demo, test and lint remember that they succeeded, so a second run with nothing changed takes no
# time.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

# Full runs of the experiments on the embedded model, whose verdicts the demo shows.
RESULTS := results/smollm2-135m-instruct

# Tests start dozens of processes; without kept bytecode each compiles all it imports.
unexport PYTHONDONTWRITEBYTECODE

OWN     := -type f -not -path '*__pycache__*'
PACKAGE := $(shell find lens_interventions $(OWN))
LIST    := find $(wildcard lens_interventions tests benchmarks notebooks docs results *.md \
                Makefile mkdocs.yml pyproject.toml) $(OWN)
CHECKED := $(shell $(LIST))

.PHONY: demo test lint docs compat bench format clean FORCE
.DELETE_ON_ERROR:

demo: report/index.html
test: $(VENV)/.tested
lint: $(VENV)/.linted

# Who reads the demo needs no notebooks and no tests.
$(VENV)/.readable: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable .
	touch $@

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --editable '.[dev]'
	touch $(VENV)/.readable $@

report/index.html: $(VENV)/.readable $(PACKAGE) $(shell find $(RESULTS) -type f)
	$(BIN)/lens-interventions demo --out report/ --results $(RESULTS)
	touch $@

# A list of the files that changes when one is removed. Their directories also change, but with
# every __pycache__ that Python makes in them. The names themselves are too long for one command.
$(VENV)/.checked: $(VENV)/.installed FORCE
	@$(LIST) | sort | cmp -s - $@ || $(LIST) | sort > $@

$(VENV)/.linted: $(VENV)/.checked $(CHECKED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	touch $@

# A file goes to one worker, so that what its tests share is made once.
$(VENV)/.tested: $(VENV)/.linted
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	touch $@

docs: $(VENV)/.documented
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

$(VENV)/.documented: $(VENV)/.installed
	$(BIN)/python -m pip install --editable '.[docs]'
	touch $@

# An hour or two, and a gigabyte for each corner; what has a result for this code is passed over.
compat: $(VENV)/.installed
	$(BIN)/python -m pip install nox
	$(BIN)/nox --noxfile tests/corners/noxfile.py

# On a machine that does nothing else: it takes its threads from the environment and all cores.
bench: $(VENV)/.installed
	$(BIN)/python -m benchmarks --out benchmarks/results.json --page benchmarks/README.md

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

clean:
	rm -rf report site build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +
