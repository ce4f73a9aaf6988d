# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test soak lint bench clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "VirtualFS needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/virtualfs demo

test: install lint
	$(BIN)/python -m pytest -q -n 2

soak: install
	for round in 1 2 3 4 5 6 7 8; do \
		$(BIN)/python -m pytest -q -n 2 tests/test_point_in_time.py --hypothesis-profile soak || exit 1; \
	done

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/historical.py

clean:
	rm -rf $(VENV) build dist virtualfs-demo
