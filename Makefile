# The commands of every day. Each builds the virtual environment that it needs.
PYTHON ?= python3
VENV ?= .venv
# The release that the project is tested with; pyproject.toml allows others.
TORCH ?= torch==2.13.0
BIN := $(VENV)/bin

.PHONY: help demo test test-all lint format bench verify-resume gpu-check fuzz docs clean
help:  ## This list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 16

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "finetune needs Python 3.11 or newer; say which with PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet '$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

demo: $(VENV)/.installed  ## Fine-tune a transformer and an LSTM on the sample data, compare them, label a sentence
	$(BIN)/python recipes/demo.py

test: $(VENV)/.installed  ## The test suite, without the tests that are marked slow
	$(BIN)/python -m pytest -n 2 -m 'not slow'

test-all: $(VENV)/.installed  ## The whole test suite
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.installed  ## ruff (check and format), mypy, pip-audit
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python .ci/audit.py

format: $(VENV)/.installed  ## Let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed  ## The table of benchmarks/README.md, and how cost grows
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/scaling.py
	$(BIN)/python benchmarks/pretraining.py

verify-resume: $(VENV)/.installed  ## Kill real runs at random moments, resume them, compare the bytes
	$(BIN)/python benchmarks/verify_resume.py

gpu-check: $(VENV)/.installed  ## What the first hour with a GPU should ask; skips itself without one
	$(BIN)/python benchmarks/gpu_check.py

fuzz: $(VENV)/.installed  ## Fuzz readers, alignment, masking and configs for some minutes
	$(BIN)/python -m pytest tests/fuzz --hypothesis-profile=fuzz

docs: $(VENV)/.installed  ## The documentation as a site, in build/site; stops at a link that leads nowhere
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

clean:  ## Remove the environment and the caches, not the runs
	rm -rf $(VENV) build *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
