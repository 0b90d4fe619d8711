# make demo: the main job on embedded real data.  make test: lint, types, tests.  make test-all: the slow tests.
# VENV=dir puts the environment elsewhere.
PYTHON ?= python3
VENV ?= .venv
VENV_TORCHTEXT ?= .venv-torchtext
IN := $(VENV)/bin/python

# Python's safe path would leave this folder out, and with it the packages.
unexport PYTHONSAFEPATH

.PHONY: demo test test-all test-torchtext lint clean

demo: $(VENV)/.requirements
	$(IN) -m training.demo

test: lint
	$(IN) -m pytest -n 2

# What `make test` leaves out, because it would not fit into its ten minutes.
test-all: $(VENV)/.requirements-dev
	$(IN) -m pytest -n 2 -m slow

lint: $(VENV)/.requirements-dev
	$(IN) -m ruff check .
	$(IN) -m ruff format --check .
	$(IN) -m mypy

test-torchtext: $(VENV_TORCHTEXT)/.requirements-torchtext
	$(VENV_TORCHTEXT)/bin/python -m pytest tests/data/text
	$(VENV_TORCHTEXT)/bin/python nlpmain.py docstrings lstm --limit-train 400 --out $(VENV_TORCHTEXT)/result --set epochs=1 \
		--set text_backend=torchtext --set embedding_dim=16 --set x_hid=16 --set max_len=32

# An environment is made once and brought up to date when its requirements change.
$(VENV)/.requirements: requirements.txt
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -q -r requirements.txt
	touch $@

$(VENV)/.requirements-dev: requirements-dev.txt $(VENV)/.requirements
	$(VENV)/bin/pip install --disable-pip-version-check -q -r requirements-dev.txt
	touch $@

$(VENV_TORCHTEXT)/.requirements-torchtext: requirements-torchtext.txt requirements.txt
	test -x $(VENV_TORCHTEXT)/bin/python || $(PYTHON) -m venv $(VENV_TORCHTEXT)
	$(VENV_TORCHTEXT)/bin/pip install --disable-pip-version-check -q -r requirements-torchtext.txt
	touch $@

clean:
	rm -rf $(VENV) $(VENV_TORCHTEXT) .pytest_cache .mypy_cache .ruff_cache
