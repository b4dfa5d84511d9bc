# make eval    the main job: samples on the reference model and its adapters; needs no account
# make test    installs into .venv and runs the tests, but for those in a browser
# make ledger  runs the tests and renews the table in tests/README.md
# make check   formatting, lint, types
# make real    serves a real tiny model and runs every task of the shared data; FULL=1: long tasks whole too
# make browser installs Chromium where there is none (Debian, as root), and looks at reports and `view` in it
# make local   installs the extra `local` and tests models through transformers
# make ray     installs the extra `ray` and tests workers on a cluster of two nodes (four minutes)
# make bench   how fast the program is beside a bare loop and lm-evaluation-harness, and how kind to the endpoint
# make bench-compare  how long a comparison of 60,000 items on four endpoints takes, and how much memory
# make bench-view  how long pages of `view` over a million items take, and how much memory
# make bench-merge  how long it takes to merge shards of a million requests, and how much memory
# make soak    64 clients on the embedded endpoint for two minutes; a run of REQUESTS (a million) requests;
#              MIXES (1000) runs among mixed faults
# make school  writes the samples anew and trains the reference model and its adapters (an hour, torch)
# make lock    renews the tested versions in requirements.lock

PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SHARED ?= ../shared
# As many files of tests at once as there are cores, in the order of `tests/conftest.py`.
AT_ONCE := --numprocesses auto --dist loadfile --no-loadscope-reorder

.PHONY: eval test ledger check real browser chromium local ray bench bench-compare bench-merge bench-view soak school lock install clean

eval: install
	$(BIN)/forced-choice run --tasks sample_mmlu:cloze,sample_hellaswag \
		--endpoint embedded --endpoint embedded:geography --endpoint embedded:science

test: install
	$(BIN)/python -m pytest $(AT_ONCE) --ignore tests/browser

ledger: install
	$(BIN)/python -m pytest $(AT_ONCE) --ledger

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

real: install
	$(BIN)/python -m tests.real --shared $(SHARED) $(if $(FULL),--full)

browser: install chromium
	CI=true $(BIN)/python -m pytest tests/browser

# Fonts too: without any there is nothing to read on a page.
chromium:
	command -v chromium > /dev/null || (apt-get -qq update && \
		DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends chromium fonts-liberation > /dev/null)

local: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,local,reference]'
	$(BIN)/python -m pytest tests/local

ray: install
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev,ray]'
	$(BIN)/python -m pytest tests/ray

bench: install
	$(BIN)/python -m tests.bench.speed --shared $(SHARED) $(if $(ONLY),--only $(ONLY))

bench-compare: install
	$(BIN)/python -m tests.bench.comparing

bench-merge: install
	$(BIN)/python -m tests.bench.merging $(if $(REQUESTS),--requests $(REQUESTS))

bench-view: install
	$(BIN)/python -m tests.bench.viewing

soak: install
	$(BIN)/python -m tests.bench.serving
	$(BIN)/python -m tests.bench.flat $(if $(REQUESTS),--requests $(REQUESTS)) --ledger
	$(BIN)/python -m tests.bench.mixed $(if $(MIXES),--mixes $(MIXES)) --ledger

school: install
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[train]'
	$(BIN)/python -m harness.schooling all

install: $(STAMP)

# The lock pins what was tested.
$(STAMP): pyproject.toml requirements.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --constraint requirements.lock --editable '.[dev]'
	touch $(STAMP)

lock:
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check --editable '.[dev,local,ray,reference,train]'
	$(BIN)/pip freeze --all --exclude-editable | grep -v '^pip==' | sed 's/+cpu$$//' > requirements.lock
	touch $(STAMP)

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
