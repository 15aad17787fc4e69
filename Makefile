# make demo   train on the docstrings of the installed packages, and show what was learned
# make test   run the tests
# make check  lint and types
# make bench  compare with peers (omikuji, PECOS, napkinXC) on the data sets in data/, or
#             DATA="folder folder"; options for benchmarks/peers.py in BENCH
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= cpu,dev
DATA ?= $(wildcard data/bibtex data/eurlex-4.3k data/tibkat-gnd data/wordnet-114k)

.PHONY: demo test check bench clean

$(VENV)/.ready: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "ray_xml needs Python 3.11 or newer; run: make PYTHON=python3.11 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS)]'
	@touch $@

data/demo/meta.json: | $(VENV)/.ready
	$(BIN)/ray-xml prepare docstrings data/demo --overwrite

demo: $(VENV)/.ready data/demo/meta.json
	rm -rf runs/demo
	$(BIN)/ray-xml train configs/demo.yaml
	$(BIN)/ray-xml evaluate runs/demo
	$(BIN)/ray-xml examples runs/demo

test: $(VENV)/.ready
	$(BIN)/python -m pytest

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/peers.py $(BENCH) $(DATA)

clean:
	rm -rf data/demo runs/demo
