# Needs Python 3.11+ and make; everything else is installed into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: install demo test soak lint bench bench-peers notebooks clean

install: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "VirtualFS needs Python 3.11 or newer; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e ".[dev]"
	touch $(STAMP)

demo: install
	$(BIN)/virtualfs demo

test: install lint
	$(BIN)/python -m pytest -q -n 2 --dist loadfile --no-loadscope-reorder

soak: install
	$(BIN)/python -m pytest -q -n 2 tests/soak.py --timeout 0
	VIRTUALFS_SOAK_SECONDS=600 $(BIN)/python -m pytest -q -s tests/serving/test_soak.py --timeout 0

lint: install
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: install
	$(BIN)/python benchmarks/startup.py
	$(BIN)/python benchmarks/commits.py HEAD~1
	$(BIN)/python benchmarks/historical.py
	$(BIN)/python benchmarks/latest.py
	$(BIN)/python benchmarks/windows.py
	$(BIN)/python benchmarks/windows_postgres.py
	$(BIN)/python benchmarks/flights_windows.py
	$(BIN)/python benchmarks/on_demand.py
	$(BIN)/python benchmarks/polars_join.py
	$(BIN)/python benchmarks/across.py
	$(BIN)/python benchmarks/lakes.py
	$(BIN)/python benchmarks/postgres.py
	$(BIN)/python benchmarks/compile.py
	$(BIN)/python benchmarks/online.py
	$(BIN)/python benchmarks/serving.py --ours
	$(BIN)/python benchmarks/refresh.py

bench-peers: install
	$(BIN)/python benchmarks/peers.py
	$(BIN)/python benchmarks/peers_online.py
	$(BIN)/python benchmarks/registry.py
	$(BIN)/python benchmarks/serving.py

notebooks: install
	$(BIN)/python -W ignore examples/notebooks/run.py
	$(BIN)/python docs/pictures/draw.py

clean:
	rm -rf $(VENV) build dist virtualfs-demo
