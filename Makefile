# `make demo` and `make test` set themselves up: they make .venv if it is missing and install what they need.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := runs/demo
RELIABILITY := build/reliability.json
export OMP_NUM_THREADS ?= 1

.PHONY: demo test slow reliability lint clean

$(VENV)/installed: pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "rlnas needs Python >= 3.11: make PYTHON=...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: $(VENV)/installed
	rm -rf $(DEMO)
	$(BIN)/rlnas train --env rlnas/DigitsTrial-v0 --steps 50000 --trials 16 --reward accuracy --workers 2 --out $(DEMO)/train
	$(BIN)/rlnas search --agent $(DEMO)/train --tasks digits:test --trials 48 --designs 10 --workers 2 --out $(DEMO)/search
	@echo
	@echo 'Worth trying next:'
	@echo '  $(BIN)/rlnas replay $(DEMO)/search 0 --agent rl2       # watch the controller design, step by step'
	@echo '  $(BIN)/rlnas search --agent $(DEMO)/train --tasks digits:unseen-families --against wiped,random,evolution'
	@echo '  $(BIN)/rlnas train --steps 1500000 --workers 2 --out runs/digits       # a better controller, in under an hour'

test: $(VENV)/installed
	$(BIN)/python -m pytest -n 2 -m 'not slow and not gpu'

slow: $(VENV)/installed
	$(BIN)/python -m pytest -m slow

reliability: $(VENV)/installed
	mkdir -p build
	$(BIN)/python benchmarks/reliability.py --json $(RELIABILITY)

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	rm -rf build/imports && mkdir -p build/imports && cp -r rlnas build/imports/  # the package as it is installed
	cp -r envs agents build/imports/rlnas/
	cd build/imports && ../../$(BIN)/lint-imports --config ../../pyproject.toml

clean:
	rm -rf $(VENV) build *.egg-info .*_cache .hypothesis .coverage
