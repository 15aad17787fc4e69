# make demo   train on the docstrings of the installed packages, and show what was learned
# make test   run the tests
# make test-cluster  the tests that take minutes: clusters of several nodes, every kind of job, searches
# make test-faults  kill every kind of process in every phase of a run, and print what came of it
# make check  lint and types
# make fuzz   fuzz the readers for FUZZ_SECONDS, all targets or those in FUZZ (docs/fuzzing.md)
# make docs   build the site of docs/ into docs/_build/html; a warning is an error
# make tutorial  run the commands of docs/tutorial.md in an empty folder
# make bench  compare with peers (omikuji, PECOS, napkinXC) on the data sets in data/, or
#             DATA="folder folder"; options for benchmarks/peers.py in BENCH
# make scale  how runs grow with labels, documents and workers: the tables of docs/scaling.md
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
EXTRAS ?= cpu,dev
FUZZ_SECONDS ?= 600
DATA ?= $(wildcard data/bibtex data/eurlex-4.3k data/tibkat-gnd data/wordnet-114k)

.PHONY: demo test test-cluster test-faults check fuzz docs tutorial bench scale clean

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
	$(BIN)/python tests/side_by_side.py

test-cluster: $(VENV)/.ready
	$(BIN)/python -m pytest --minutes -m minutes

test-faults: $(VENV)/.ready
	$(BIN)/python tests/faults/matrix.py

check: $(VENV)/.ready
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

fuzz: $(VENV)/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),fuzz]'
	$(BIN)/python tests/fuzz/run.py --work data/fuzz --seconds $(FUZZ_SECONDS) $(FUZZ)

docs: $(VENV)/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),docs]'
	$(BIN)/python -m sphinx -W --keep-going --quiet -b html docs docs/_build/html

tutorial: $(VENV)/.ready
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[$(EXTRAS),serve]'
	$(BIN)/python tests/tutorial.py

bench: $(VENV)/.ready
	$(BIN)/python benchmarks/peers.py $(BENCH) $(DATA)

scale: $(VENV)/.ready
	mkdir -p data/scaling
	$(BIN)/python benchmarks/scaling.py --work data/scaling --json data/scaling/labels.json \
	  --labels 10000,100000,1000000,2800000 --documents 20000
	$(BIN)/python benchmarks/scaling.py --work data/scaling --json data/scaling/documents.json \
	  --labels 100000 --documents 10000,100000,1000000
	$(BIN)/python benchmarks/scaling.py --work data/scaling --json data/scaling/workers.json \
	  --labels 1000000 --documents 20000 --workers 1,2
	$(BIN)/python benchmarks/scaling.py --work data/scaling --json data/scaling/large.json \
	  --labels 2800000 --documents 200000 --test-documents 5000
	$(BIN)/python benchmarks/scaling_paper.py

clean:
	rm -rf data/demo data/scaling data/fuzz runs/demo docs/_build
