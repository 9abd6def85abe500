# Works with GNU make 3.81 (macOS) and newer: no .ONESHELL, no grouped targets, no $(file ...).

.DEFAULT_GOAL := help
SHELL := /bin/sh

PY := .venv/bin/python
STAMP := .venv/.installed

# The longest first, so that no process ends long before the others; all learner's versions before the solved ones, which then
# find the answers of models in build/store, instead of computing them at the same moment.
LONGEST := 06 04 10 13 01 09 07 00
in_order = $(wildcard $(LONGEST:%=$(1)/%_*.ipynb)) $(filter-out $(LONGEST:%=$(1)/%_%),$(sort $(wildcard $(1)/*.ipynb)))
NOTEBOOKS := $(call in_order,notebooks) $(call in_order,notebooks/solved)

# --nbval compares every output with the stored one. --nbval-lax compares none: there the claims judge, and any error fails.
NBVAL := --nbval

# PYTHON=... picks the interpreter that .venv is made from; otherwise the first of these that is 3.11, 3.12 or 3.13.
PYTHONS := $(if $(PYTHON),"$(PYTHON)",python3.13 python3.12 python3.11 python3)
IN_RANGE := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 14))

# TORCH=cpu takes the build of torch without CUDA, a third of the bytes; TORCH=cu130 and such one for a GPU. Only uv knows where
# they are, so that it is installed for it. Without TORCH: what the platform's package is, by uv if it is there, else by pip.
# Where pip is told by its variables where to look, pip is asked: uv does not read them.
UV := $(if $(PIP_NO_INDEX)$(PIP_INDEX_URL)$(PIP_FIND_LINKS),,$(shell command -v uv 2>/dev/null))
WANTED := -c constraints.txt -e '.[notebooks,dev,full]'

# Tests of JOBS modules, or cells of JOBS notebooks, run beside each other, with one thread each.
JOBS := 2
BESIDE = -n $(JOBS) --dist loadscope

# Two threads and a fixed hash seed, so that runs are comparable; waiting threads sleep instead of spinning.
OMP_NUM_THREADS ?= 2
OMP_WAIT_POLICY := passive
PYTHONHASHSEED := 0
export OMP_NUM_THREADS OMP_WAIT_POLICY PYTHONHASHSEED
# A backend of the caller's would suppress the inline figures of the notebooks; the unit tests set Agg for themselves.
unexport MPLBACKEND

.PHONY: help tutorial test lint unit notebooks-test lab zoo results curves text notebooks timings book bench format install clean distclean

help: ## list the targets
	@echo "usage: make TARGET    (everything runs in .venv, which is made on first use)"
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-15s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "settings: PYTHON=python3.12 (interpreter for .venv), TORCH=cpu (torch without CUDA, 2 GB instead of 6.6),"
	@echo "          UV= (install by pip although uv is there), JOBS=2 (tests at a time),"
	@echo "          OMP_NUM_THREADS=2, NBVAL=--nbval-lax (claims alone)"

tutorial: $(STAMP) ## run every notebook on the mini suite, print the headline table, write build/ and the book
	$(PY) -m dts_mini.tutorial

test: $(STAMP) ## lint, unit and property tests, notebooks under nbval
	$(MAKE) lint
	$(MAKE) unit
	$(MAKE) notebooks-test

lint: $(STAMP) ## ruff: check and format --check
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

unit: $(STAMP) ## unit and property tests
	MPLBACKEND=Agg OMP_NUM_THREADS=1 $(PY) -m pytest $(BESIDE) tests

notebooks-test: $(STAMP) ## run the notebooks again and compare them with their stored outputs
	@if [ -z "$(NOTEBOOKS)" ]; then echo "make: no notebooks/*.ipynb to test" >&2; exit 1; fi
	OMP_NUM_THREADS=1 DTS_STORE="$(CURDIR)/build/store" \
	  $(PY) -m pytest $(BESIDE) --no-loadscope-reorder $(NBVAL) --nbval-current-env --nbval-sanitize-with tests/nbval_sanitize.cfg \
	  --nbval-cell-timeout 300 --runxfail $(NOTEBOOKS)

lab: $(STAMP) ## open the notebooks in JupyterLab
	$(PY) -m jupyter lab notebooks

zoo: $(STAMP) ## train the mini checkpoints again and compare (SEED=n; THETA_0=file to fine-tune only; HONEST=1: other captions)
	$(PY) -m dts_mini.suites.mini.zoo $(if $(SEED),--seed $(SEED)) $(if $(THETA_0),--theta-0 $(THETA_0)) $(if $(HONEST),--honest)

results: $(STAMP) ## measure the published tables on test, write data/, README and docs/results.md (SEEDS="0 1 2": over zoos)
	$(PY) -m dts_mini.results $(if $(SEEDS),--seeds $(SEEDS))

curves: $(STAMP) ## measure the size-accuracy curve, write data/mini/curves.json (SEEDS="1 2": over zoos; resumable)
	$(PY) -m dts_mini.measures.curves $(if $(SEEDS),--seeds $(SEEDS))

text: $(STAMP) ## train and measure the text suite, write data/text/ (SEEDS="0 1 2", WORK=folder for what is kept; resumable)
	$(PY) -m dts_mini.measures.text $(if $(SEEDS),--seeds $(SEEDS)) $(if $(WORK),--work $(WORK))
	$(PY) -m dts_mini.results --readme-only

notebooks: $(STAMP) ## build the notebooks from notebooks/source, outputs and claims stored (NAME=02 for one)
	$(PY) -m dts_mini.course.build $(NAME)
	$(PY) -m dts_mini.results --readme-only

timings: $(STAMP) ## run every notebook and write data/timings.json, on a machine with nothing else to do
	$(PY) -m dts_mini.course.timings

book: $(STAMP) ## build the static book, build/book/, from the solved notebooks; it opens from disk
	$(PY) -m dts_mini.course.book

bench: $(STAMP) ## time and memory of compress and rebuild on ViT-B/32 shapes
	$(PY) -m benchmarks.compress

format: $(STAMP) ## let ruff mend what it can
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

install: $(STAMP) ## only make .venv

clean: ## remove build outputs and caches
	rm -rf build dts_mini.egg-info .pytest_cache .ruff_cache .hypothesis .coverage htmlcov
	find . -path ./.venv -prune -o \( -name __pycache__ -o -name .ipynb_checkpoints \) -type d -prune -exec rm -rf {} +

distclean: clean ## the same, and .venv
	rm -rf .venv

# The stamp is touched last: an installation that was cut off is taken up again by the next call.
$(STAMP): pyproject.toml constraints.txt
	@set -e; \
	if .venv/bin/python -c 'import pip; $(IN_RANGE)' 2>/dev/null; then \
	  echo "make: reusing .venv"; \
	else \
	  found=""; \
	  for candidate in $(PYTHONS); do \
	    if "$$candidate" -c '$(IN_RANGE)' 2>/dev/null; then found="$$candidate"; break; fi; \
	  done; \
	  if [ -z "$$found" ]; then \
	    echo "make: no Python 3.11, 3.12 or 3.13 found (tried:" $(PYTHONS)")." >&2; \
	    echo "      Install one, or name it: make PYTHON=/path/to/python3.12 ..." >&2; \
	    exit 1; \
	  fi; \
	  if ! "$$found" -c 'import ensurepip, venv' 2>/dev/null; then \
	    echo "make: $$found cannot make virtual environments (no venv or ensurepip)." >&2; \
	    echo "      On Debian and Ubuntu: apt-get install python3-venv" >&2; \
	    exit 1; \
	  fi; \
	  echo "make: creating .venv with $$("$$found" --version)"; \
	  "$$found" -m venv --clear .venv; \
	fi
	@echo "make: installing into .venv (2 to 5 minutes the first time; with uv one or two)"
	@set -e; \
	uv="$(UV)"; \
	if [ -n "$(TORCH)" ] && [ -z "$$uv" ]; then \
	  $(PY) -m pip install --disable-pip-version-check -q uv; uv=.venv/bin/uv; \
	fi; \
	if [ -n "$$uv" ]; then \
	  set -x; "$$uv" pip install --python $(PY) $(if $(TORCH),--torch-backend $(TORCH)) $(WANTED); \
	else \
	  set -x; $(PY) -m pip install --disable-pip-version-check $(WANTED); \
	fi
	@touch $@
