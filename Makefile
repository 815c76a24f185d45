# Everything sets up what it needs: `make run`, `make test`.

PYTHON ?= python3
PIP_INSTALL = -m pip install --quiet --disable-pip-version-check --no-deps
PY = .venv/bin/python
PY_TORCH = .venv-torch/bin/python
PY_TF215 = .venv-tf215/bin/python
PY_OLDEST = .venv-oldest/bin/python
PY_PLAN = .venv-plan/bin/python
PY_DOCS = .venv-docs/bin/python
PY_DATA = .venv-data/bin/python
PY_RELEASE = .venv-release/bin/python
PYTEST = -m pytest --durations=5
# The Python blocks of README and the site's pages (tests/docs/code_blocks.py).
CODE_BLOCKS = $(PYTEST) -p tests.docs.code_blocks README.md docs

# An interpreter of that version: on the PATH, else one of pyenv's.
find_python = $(shell for python in python$(1) \
	"$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$(1).*/bin/python; do \
	"$$python" -c 'import ensurepip' 2>/dev/null && echo "$$python" && break; \
	done)
PYTHON312 ?= $(call find_python,3.12)
PYTHON313 ?= $(call find_python,3.13)

# make run STEPS=20: the same, shorter. ARGS adds any flag of the script. A slow
# machine does fewer steps in the HOURS, its rate decayed; HOURS= has no limit.
HOURS ?= 0.15
RUN = $(if $(STEPS),--steps $(STEPS) --output_dir runs/bert-$(STEPS),\
	$(if $(HOURS),--hours $(HOURS))) $(ARGS)

.PHONY: help run test test-models test-tensorflow \
	test-docstrings test-jax test-tf215 test-torch test-oldest test-plan \
	test-data test-docs docs evidence bench bench-update-step bench-groups \
	bench-first-step bench-memory bench-sharded-memory bench-scaling \
	bench-tpu bench-batch-scaling bench-enough-steps bench-image-pipeline \
	bench-pretraining-data \
	run-resnet evidence-robustness plan-pod notebooks lint format check package fixture clean
.DEFAULT_GOAL := help

help:
	@echo "make run          pretrain a small BERT with LAMB, ten minutes at most, besides"
	@echo "                  setting up (STEPS=20: a short try; HOURS=: without a limit)"
	@echo "make run-resnet   train a small ResNet on MNIST digits (ARGS: its flags)"
	@echo "make test         all tests: TensorFlow (Keras 3, tf_keras), JAX, TF 2.15"
	@echo "make test-torch   tests on torch, and against Hugging Face transformers"
	@echo "make test-oldest  front-end tests on the oldest supported versions"
	@echo "make test-newest  front-end tests on Python 3.12 and 3.13, newest versions"
	@echo "make test-plan    words that LAMB moves on a TPU, by its compiler (no TPU)"
	@echo "make test-data    the Beam pipeline of pretraining data, pretraining on it"
	@echo "make plan-pod     BERT-large and ResNet-50 compiled for a v3 pod (no TPU)"
	@echo "make test-docs    runs the code blocks of README and the site's pages"
	@echo "make docs         builds the site: build/docs/index.html"
	@echo "make evidence     twelve workers killed and resumed (6 minutes)"
	@echo "make evidence-robustness  10,000 damaged inputs, 100 kills of scripts"
	@echo "make bench        speed, memory, TPU words (QUICK=1: short); also"
	@echo "                  bench-update-step -train-step -groups -first-step -memory"
	@echo "                  -scaling -tpu -sharded-memory"
	@echo "make bench-image-pipeline  images/s of the ImageNet pipeline"
	@echo "make bench-pretraining-data ARGS='--input ...'  MB/s, memory of the same"
	@echo "make bench-batch-scaling   accuracy against batch, digits (minutes);"
	@echo "                  TASK=cifar10 ARGS='--data_dir DIR --hours 3'"
	@echo "make bench-enough-steps    the same where the largest batch has 1,500 updates"
	@echo "                  (Fashion-MNIST of Debian, two hours of one core)"
	@echo "make notebooks    executes the notebooks of docs/notebooks in place"
	@echo "make check        ruff, mypy, make test, make docs: before a merge"
	@echo "make format       ruff format"
	@echo "make package      wheel and source distribution under dist/"
	@echo "make release-check  build, twine check, install the wheel with each extra"
	@echo "                  in a new environment, train a step on each Keras"
	@echo "make test-extras  the same of some extras: EXTRAS='jax hub'"
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

.venv-tf215/ready: requirements/tf215.txt
	$(PYTHON) -m venv --clear .venv-tf215
	$(PY_TF215) $(PIP_INSTALL) -r requirements/tf215.txt
	touch $@

.venv-oldest/ready: requirements/oldest.txt
	$(PYTHON) -m venv --clear .venv-oldest
	$(PY_OLDEST) $(PIP_INSTALL) -r requirements/oldest.txt
	touch $@

.venv-plan/ready: requirements/plan.txt
	$(PYTHON) -m venv --clear .venv-plan
	$(PY_PLAN) $(PIP_INSTALL) -r requirements/plan.txt
	touch $@

.venv-docs/ready: requirements/docs.txt
	$(PYTHON) -m venv --clear .venv-docs
	$(PY_DOCS) $(PIP_INSTALL) -r requirements/docs.txt
	touch $@

.venv-data/ready: requirements/data.txt
	$(PYTHON) -m venv --clear .venv-data
	$(PY_DATA) $(PIP_INSTALL) -r requirements/data.txt
	touch $@

.venv-py312/ready .venv-py313/ready: .venv-py%/ready: requirements/newest-py%.txt
	$(PYTHON$*) -m venv --clear .venv-py$*
	.venv-py$*/bin/python $(PIP_INSTALL) -r $<
	touch $@

.venv-release/ready: requirements/release.txt
	$(PYTHON) -m venv --clear .venv-release
	$(PY_RELEASE) $(PIP_INSTALL) -r requirements/release.txt
	touch $@

.PHONY: .venv .venv-torch .venv-tf215 .venv-oldest .venv-plan .venv-docs \
	.venv-data
.venv: .venv/ready
.venv-torch: .venv-torch/ready
.venv-tf215: .venv-tf215/ready
.venv-oldest: .venv-oldest/ready
.venv-plan: .venv-plan/ready
.venv-docs: .venv-docs/ready
.venv-data: .venv-data/ready

run: .venv/ready
	@TF_CPP_MIN_LOG_LEVEL=2 $(PY) -m official_models.nlp.bert.pretrain $(RUN)

run-resnet: .venv/ready
	@TF_CPP_MIN_LOG_LEVEL=2 $(PY) -m official_models.vision.resnet.train $(ARGS)

test: test-models test-tensorflow test-docstrings test-jax test-tf215 test-plan test-docs

# In two parts, so that `make --jobs=2` has something to share.
test-models: .venv/ready
	KERAS_BACKEND=tensorflow $(PY) $(PYTEST) tests/official_models

# XLA compiles quickly in tests (tests/conftest.py), but as for users where every
# option is held to the reference, and where it is read what XLA fuses.
AS_FOR_USERS = tests/keras2/test_parity.py tests/keras3/test_parity.py \
	tests/test_tf_update.py

test-tensorflow: .venv/ready
	KERAS_BACKEND=tensorflow $(PY) $(PYTEST) --ignore tests/hugging_face \
		--ignore tests/tpu --ignore tests/official_models --ignore tests/data \
		$(addprefix --ignore ,$(AS_FOR_USERS))
	QUICK_XLA=0 KERAS_BACKEND=tensorflow $(PY) $(PYTEST) $(AS_FOR_USERS)

# The examples in the docstrings of the package.
test-docstrings: .venv/ready
	KERAS_BACKEND=tensorflow $(PY) $(PYTEST) --doctest-modules tf_lamb \
		--ignore-glob 'tf_lamb/torch_*.py'  # no torch there

# What models share with every Keras there is.
EVERY_KERAS = tests/official_models/common/test_ops.py \
	tests/official_models/vision/resnet/test_forward.py \
	tests/official_models/nlp/bert/test_forward.py \
	tests/official_models/nlp/bert/test_heads.py

test-jax: .venv/ready
	KERAS_BACKEND=jax $(PY) $(PYTEST) tests/keras3 tests/callbacks tests/support_matrix \
		tests/official_models/test_model_parallel.py tests/diagnostics \
		tests/benchmarks/test_enough_steps.py \
		--ignore tests/keras3/test_parity.py $(EVERY_KERAS)
	QUICK_XLA=0 KERAS_BACKEND=jax $(PY) $(PYTEST) tests/keras3/test_parity.py

test-tf215: .venv-tf215/ready .venv/ready
	KERAS_BACKEND=tensorflow $(PY_TF215) $(PYTEST) tests/keras2 tests/v1 \
		tests/callbacks tests/support_matrix tests/tpu/estimator $(EVERY_KERAS)

test-torch: .venv-torch/ready
	KERAS_BACKEND=torch $(PY_TORCH) $(PYTEST) tests/keras3 tests/hugging_face \
		tests/callbacks tests/support_matrix tests/diagnostics/test_masks.py \
		tests/diagnostics/test_initialisation.py \
		tests/benchmarks/test_torch_update.py \
		tests/diagnostics/test_second_opinion.py
	KERAS_BACKEND=torch $(PY_TORCH) $(CODE_BLOCKS)

test-oldest: .venv-oldest/ready
	KERAS_BACKEND=tensorflow $(PY_OLDEST) $(PYTEST) tests/keras3 tests/callbacks \
		tests/support_matrix -k "not processes"

# The rows of those Pythons that this machine has; says which it lacks.
NEWEST = $(foreach row,312 313,$(if $(PYTHON$(row)),test-py$(row)))
.PHONY: test-newest test-py312 test-py313
test-newest:
	@$(foreach row,312 313,$(if $(PYTHON$(row)),,echo "test-newest: no Python\
		$(row:3%=3.%) on the PATH or in pyenv: its row is skipped";))
	@test -n "$(strip $(NEWEST))" || { echo "test-newest: nothing to run; install one" \
		"or set PYTHON312=... or PYTHON313=..."; exit 1; }
	$(MAKE) $(NEWEST)

test-py312 test-py313: test-py%: .venv-py%/ready
	KERAS_BACKEND=tensorflow .venv-py$*/bin/python $(PYTEST) tests/keras3 \
		tests/keras2 tests/callbacks tests/support_matrix tests/test_*.py
	KERAS_BACKEND=jax .venv-py$*/bin/python $(PYTEST) tests/keras3 \
		tests/callbacks tests/support_matrix

test-plan: .venv-plan/ready
	KERAS_BACKEND=jax $(PY_PLAN) $(PYTEST) tests/tpu/plan

# apache-beam has an environment of its own: it wants an older protobuf.
test-data: .venv-data/ready
	KERAS_BACKEND=tensorflow $(PY_DATA) $(PYTEST) tests/data

test-docs: .venv/ready .venv-tf215/ready
	KERAS_BACKEND=tensorflow $(PY) $(CODE_BLOCKS)
	KERAS_BACKEND=jax $(PY) $(CODE_BLOCKS)
	TF_USE_LEGACY_KERAS=1 $(PY) $(CODE_BLOCKS)
	$(PY_TF215) $(CODE_BLOCKS)

# Warnings, and references to names that are not there, are errors.
docs: .venv-docs/ready
	$(PY_DOCS) -m sphinx -W --keep-going -n -q -d build/doctrees docs build/docs
	@echo "-> build/docs/index.html"

# Published runs on a v3 pod, compiled for it: half an hour, no TPU.
plan-pod: .venv-plan/ready
	for recipe in lamb-76min lamb-32k resnet50-2min; do \
		$(PY_PLAN) -m tpu.plan --recipe $$recipe \
			--output benchmarks/results/tpu_plan/$$recipe.json || exit; \
	done

bench-tpu: .venv-plan/ready
	$(PY_PLAN) -m benchmarks.tpu_words $(if $(QUICK),--quick) $(ARGS)

evidence: .venv/ready
	TF_CPP_MIN_LOG_LEVEL=3 $(PY) -m tests.multi_worker.faults --kills 10 \
		--tf_keras_kills 2 --seed 0 --output tests/multi_worker/results/faults.json

evidence-robustness: .venv/ready
	TF_CPP_MIN_LOG_LEVEL=3 $(PY) -m tests.robustness.run --inputs 10000 \
		--output tests/robustness/results/inputs.json
	TF_CPP_MIN_LOG_LEVEL=3 $(PY) -m tests.robustness.kills --kills 100 \
		--output tests/robustness/results/kills.json

# make bench-memory QUICK=1: small variables, and results/ stays as it is.
BENCH = $(PY) -m benchmarks.$(1) $(if $(QUICK),--quick,\
	--output benchmarks/results/$(1).json)

# What a README quotes comes from here.
bench: bench-update-step bench-train-step bench-groups bench-first-step bench-memory \
	bench-scaling bench-tpu

bench-train-step: .venv/ready .venv-torch/ready
	$(call BENCH,train_step)

bench-update-step: .venv/ready .venv-torch/ready .venv-tf215/ready
	$(PY) -m benchmarks.update_step $(if $(QUICK),--quick,--readme)

bench-groups: .venv/ready
	$(call BENCH,groups)

bench-first-step: .venv/ready
	$(call BENCH,first_step)

bench-memory: .venv/ready
	$(call BENCH,memory)

bench-sharded-memory: .venv/ready
	$(call BENCH,sharded_memory)

bench-scaling: .venv/ready
	$(call BENCH,scaling)

bench-enough-steps: .venv/ready
	KERAS_BACKEND=jax $(PY) -m benchmarks.enough_steps $(ARGS)

# The digits in minutes; CIFAR-10 (ARGS="--data_dir DIR --hours 3") in hours.
bench-batch-scaling: .venv/ready
	$(PY) -m benchmarks.batch_scaling \
		$(if $(TASK),--task $(TASK)) $(ARGS)

bench-image-pipeline: .venv/ready
	$(call BENCH,image_pipeline)

bench-pretraining-data: .venv-data/ready
	$(PY_DATA) -m benchmarks.pretraining_data $(ARGS)

# NOTEBOOKS="docs/notebooks/trust_ratios.ipynb" for one.
notebooks: .venv/ready
	$(PY) docs/notebooks/execute.py $(NOTEBOOKS)

lint: .venv/ready
	$(PY) -m ruff format --check
	$(PY) -m ruff check
	$(PY) -m mypy

check: lint test docs

format: .venv/ready
	$(PY) -m ruff format
	$(PY) -m ruff check --fix

package: .venv-release/ready
	$(PY_RELEASE) -m build --outdir dist .

.PHONY: release-check test-extras
release-check: .venv-release/ready
	.venv-release/bin/cffconvert --validate
	$(PY_RELEASE) -m tests.packaging.release_check

test-extras: .venv-release/ready
	$(PY_RELEASE) -m tests.packaging.release_check \
		$(if $(EXTRAS),--only $(EXTRAS))

fixture: .venv-torch/ready
	KERAS_BACKEND=torch $(PY_TORCH) tests/official_models/nlp/bert/hf_fixture.py

clean:
	rm -rf .venv .venv-torch .venv-tf215 .venv-oldest .venv-plan .venv-docs \
		.venv-data \
		.venv-py312 .venv-py313 .venv-release build dist *.egg-info
