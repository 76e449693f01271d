# Two commands on a fresh machine with Python >= 3.11: `make demo` and `make test`.
# Every install carries constraints.txt, so torch stays the pinned build.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS := dev,docs,report,html,audio,nussl-without-sox,ray
STAMP := $(VENV)/.installed
# What a user needs, and nothing for tests. A user imports a small part of the packages, and Python compiles it then: pip would compile all of them on one
# core, half of the time of the demo. Tests start so many processes that all is compiled before, on every core (torch has a file for a later Python).
USER := $(VENV)/.user

.PHONY: demo test test-slow lint docs clean

# All methods of the suite's list on all mixtures, a score method on the first 100, pictures of the latter: under two minutes on two cores.
demo: $(USER)
	$(BIN)/sepbench run --suite digits-pairs --out runs/demo
	$(BIN)/sepbench run --suite digits-pairs --limit 100 --methods average,nmf,projected --out runs/demo-score
	$(BIN)/sepbench panel runs/demo-score

# One thread per worker: two workers with two threads each would wait for each other at every small operation.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(USER): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "error: sepbench needs Python >= 3.11; name one with: make PYTHON=python3.11 ..." >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --no-compile --upgrade pip || true  # with that of Python 3.11 our packages took 51 s, with 26.3 they took 33; the old one will do, too
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch==2.13.0 --editable '.[report,html]'
	@touch $(USER)

$(STAMP): $(USER)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[$(EXTRAS)]'
	$(BIN)/python -m pip install --quiet --no-compile --no-deps --constraint constraints.txt nussl==1.1.9
	@$(BIN)/python -m compileall -qq -j 0 $(VENV)/lib sepbench baselines || true
	@touch $(STAMP)

clean:
	rm -rf $(VENV) runs build dist site
