# Everything sets up what it needs: `make run`, `make test`.

PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-deps
PY = .venv/bin/python
PY_TORCH = .venv-torch/bin/python
PYTEST = -m pytest --durations=5

# make run STEPS=20: the same, shorter. ARGS adds any flag of the script.
RUN = $(if $(STEPS),--steps $(STEPS) --output_dir runs/bert-$(STEPS)) $(ARGS)

.PHONY: help run test test-tensorflow test-jax test-torch lint format check \
	package fixture clean
.DEFAULT_GOAL := help

help:
	@echo "make run          pretrain a small BERT with LAMB (STEPS=20: a short try)"
	@echo "make test         all tests, on TensorFlow and JAX"
	@echo "make test-torch   tests on torch, and against Hugging Face transformers"
	@echo "make check        ruff, then make test: what has to pass before a merge"
	@echo "make format       ruff format"
	@echo "make package      wheel and source distribution under dist/"
	@echo "make fixture      write the BERT fixture anew from transformers"
	@echo "make clean        remove environments and builds (runs/ stays)"

.venv/ready: requirements/main.txt
	$(PYTHON) -m venv --clear .venv
	$(PY) $(PIP_INSTALL) -r requirements/main.txt
	touch $@

.venv-torch/ready: requirements/torch.txt
	$(PYTHON) -m venv --clear .venv-torch
	$(PY_TORCH) $(PIP_INSTALL) -r requirements/torch.txt
	touch $@

.PHONY: .venv .venv-torch
.venv: .venv/ready
.venv-torch: .venv-torch/ready

run: .venv/ready
	@TF_CPP_MIN_LOG_LEVEL=2 $(PY) -m official_models.nlp.bert.pretrain $(RUN)

test: test-tensorflow test-jax

test-tensorflow: .venv/ready
	KERAS_BACKEND=tensorflow $(PY) $(PYTEST) --ignore tests/live

test-jax: .venv/ready
	KERAS_BACKEND=jax $(PY) $(PYTEST) tests/keras3

test-torch: .venv-torch/ready
	KERAS_BACKEND=torch $(PY_TORCH) $(PYTEST) tests/keras3 tests/live

lint: .venv/ready
	$(PY) -m ruff format --check
	$(PY) -m ruff check

check: lint test

format: .venv/ready
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

package: .venv/ready
	$(PY) -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PY) setup.py --quiet sdist

fixture: .venv-torch/ready
	KERAS_BACKEND=torch $(PY_TORCH) tests/official_models/nlp/bert/hf_fixture.py

clean:
	rm -rf .venv .venv-torch build dist *.egg-info
