# distill. `make` lists the targets.
#
#   make quickstart PYTHON=python3.13     another interpreter (3.11 to 3.14)
#   make test PYTEST_ARGS='-m "not slow"' arguments for pytest (the last -m counts)
#
# The environment is kept until requirements.lock or pyproject.toml change. One lock file serves
# Python 3.11 to 3.14.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.SUFFIXES:
MAKEFLAGS += --no-print-directory --no-builtin-rules

PYTHON ?=
PYTEST_ARGS ?=
VENV ?= .venv
BIN := $(VENV)/bin

# DeepSpeed compiles its CPU communication op at run time: keep the result between runs.
TORCH_EXTENSIONS_DIR ?= $(CURDIR)/.cache/torch_extensions
export TORCH_EXTENSIONS_DIR
export PIP_DISABLE_PIP_VERSION_CHECK := 1

# With it each of Ray's processes would compile this package anew, a tenth of its start.
unexport PYTHONDONTWRITEBYTECODE

# torch looks for ninja on PATH, not beside the interpreter.
WITH_VENV := PATH="$(CURDIR)/$(BIN):$$PATH"

# A stamp is named after what it was installed from, so that a checkout of other pins is noticed.
KEY := $(shell { cat requirements.lock pyproject.toml; echo "$(CURDIR) $(PYTHON)"; } 2>/dev/null \
	| cksum | cut -d ' ' -f 1)
RUNTIME := $(VENV)/.runtime-$(KEY)
DEV := $(VENV)/.dev-$(KEY)
OPS := $(VENV)/.ops-$(KEY)

IS_USABLE := import ensurepip, sys, venv; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))
BUILD_OP := from deepspeed.ops.op_builder.cpu import ShareMemCommBuilder as B; B().load(verbose=False)

# Shell: sets $$python to the first usable interpreter, or ends with what to do.
define FIND_PYTHON
	python=; \
	for name in $(if $(PYTHON),"$(PYTHON)",python3.11 python3.12 python3.13 python3.14 python3 python); do \
		if "$$name" -c '$(IS_USABLE)' >/dev/null 2>&1; then python=$$name; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
		echo "distill needs Python 3.11 to 3.14 with the venv module, and found" \
			"$(if $(PYTHON),that $(PYTHON) is not,none of them on PATH)." >&2; \
		echo "Install one (Debian, Ubuntu: apt install python3.11 python3.11-venv)," \
			"or name it: make $(or $(firstword $(MAKECMDGOALS)),quickstart) PYTHON=/path/to/python3.13" >&2; \
		exit 1; \
	fi
endef

.PHONY: help
help: ## List the targets
	@awk 'BEGIN {FS = ":.*## "} /^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' Makefile

.PHONY: quickstart
quickstart: $(RUNTIME) $(OPS) ## Install, then train experts and a student on sample data
	@echo "==> sample data in data/sentiment (seconds)"
	@$(WITH_VENV) python -m distill.samples.sentiment --out data/sentiment
	@echo "==> distill train configs/quickstart.yaml (minutes on a CPU; Ctrl-C keeps a checkpoint)"
	@$(WITH_VENV) distill train configs/quickstart.yaml

# bfloat16 is 3 to 8 times faster than float32 where the CPU multiplies it, and slower elsewhere.
LM_DTYPE := $(shell grep -qw amx_bf16 /proc/cpuinfo 2>/dev/null \
	&& echo trainer.dtype=bfloat16 teachers.0.dtype=bfloat16)

.PHONY: lm-quickstart
lm-quickstart: $(RUNTIME) $(OPS) ## Install, then distil a language model into 4 of its layers
	@echo "==> SmolLM2-135M-Instruct in data/smollm2, prose and code in data/prose-and-code (2 minutes)"
	@$(WITH_VENV) python -m distill.samples.smollm2 --out data/smollm2
	@$(WITH_VENV) python -m distill.samples.prose_and_code --out data/prose-and-code
	@echo "==> distill train configs/lm-quickstart.yaml (minutes on a CPU; Ctrl-C keeps a checkpoint)"
	@$(WITH_VENV) distill train configs/lm-quickstart.yaml $(LM_DTYPE)

# One thread each: two processes of two threads would spin for the same cores.
PYTEST := OMP_NUM_THREADS=1 $(WITH_VENV) python -m pytest --numprocesses 2

# Collecting all files takes each process 10 s.
SLOW_FILES = $(shell grep -rl 'mark\.slow' tests --include='test_*.py')

.PHONY: test
test: lint types $(OPS) ## Lint, types, the fast tests and a few complete runs
	@echo "==> pytest: fast tests and a few whole runs (the slowest are listed at the end)"
	@$(PYTEST) -m "not slow or e2e" $(PYTEST_ARGS)

.PHONY: test-rest
test-rest: $(DEV) $(OPS) ## The tests that `make test` leaves out
	@echo "==> pytest: the other tests on real Ray and DeepSpeed (minutes)"
	@$(PYTEST) -m "slow and not e2e" $(SLOW_FILES) $(PYTEST_ARGS)

.PHONY: test-all
test-all: lint types $(OPS) ## Lint, types and all tests
	@echo "==> pytest: all tests (minutes; the slowest are listed at the end)"
	@$(PYTEST) $(PYTEST_ARGS)

.PHONY: mutants
mutants: $(DEV) ## Rule mutations, each of which a test must fail
	@echo "==> rule mutations (minutes; some: make mutants MUTANTS='skd attacks/style-never-moves')"
	@OMP_NUM_THREADS=1 $(WITH_VENV) python -m tests.mutants $(MUTANTS)

.PHONY: lint
lint: $(DEV) ## ruff: rules and format; shell syntax
	@echo "==> ruff (a second)"
	@bash -n cluster/on-prem.sh
	@$(BIN)/ruff check --quiet .
	@$(BIN)/ruff format --check --quiet . || { \
		echo "not formatted (make format): $$($(BIN)/ruff format --check . | sed -n 's/^Would reformat: //p' | tr '\n' ' ')"; \
		exit 1; }

.PHONY: format
format: $(DEV) ## ruff: fix and format in place
	@$(BIN)/ruff check --fix --quiet .
	@$(BIN)/ruff format --quiet .

.PHONY: types
types: $(DEV) ## Static types (basedpyright, pyright's standard mode)
	@echo "==> types (about 20 s)"
	@$(BIN)/basedpyright --pythonpath $(BIN)/python

.PHONY: environment
environment: $(DEV) $(OPS) ## Install what the tests need, and nothing else

.PHONY: docs
docs: $(DEV) ## The documentation as a site in .cache/site
	@echo "==> mkdocs (seconds)"
	@NO_MKDOCS_2_WARNING=1 $(WITH_VENV) mkdocs build --strict --quiet --config-file docs/site/mkdocs.yml
	@echo "    $(CURDIR)/.cache/site/index.html (with search: python -m http.server -d .cache/site)"

.PHONY: reference
reference: $(DEV) ## Write docs/reference from the settings and commands
	@$(WITH_VENV) python docs/site/generate.py

.PHONY: lock
lock: ## Write requirements.lock from pyproject.toml and requirements.in
	@$(FIND_PYTHON); \
	set -e; \
	echo "==> resolving pyproject.toml under requirements.in in a fresh environment (2 to 10 minutes)"; \
	rm -rf .cache/lock; mkdir -p .cache; \
	"$$python" -m venv .cache/lock; \
	DS_BUILD_OPS=0 .cache/lock/bin/python -m pip install -qq -c requirements.in -e '.[dev]'; \
	.cache/lock/bin/python -m pip check; \
	{ \
		echo "# The tested version of everything that the environment holds, as pip constraints:"; \
		echo "#   pip install -c requirements.lock -e '.[dev]'"; \
		echo "# Without local versions (+cpu, +cu130) and CUDA packages: torch pins those itself,"; \
		echo "# so the same file serves CPU and GPU machines. Written by: make lock"; \
		.cache/lock/bin/python -m pip freeze --exclude-editable \
			| sed 's/+[A-Za-z0-9.]*$$//' \
			| grep -Eiv '^(#|pip|setuptools|wheel|triton|nvidia-|cuda-)' \
			| LC_ALL=C sort -f; \
	} > .cache/requirements.lock; \
	mv .cache/requirements.lock requirements.lock; \
	rm -rf .cache/lock; \
	echo "    $$(grep -c == requirements.lock) packages in requirements.lock"

.PHONY: clean
clean: ## Remove the environment and caches; keep data/, runs/ and mlflow.db
	@rm -rf "$(VENV)" .cache build dist ./*.egg-info .pytest_cache .ruff_cache .hypothesis
	@find distill tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} + 2>/dev/null || true

$(RUNTIME):
	@set -e; \
	start=$$(date +%s); \
	wanted='$(PYTHON)'; \
	if [ -n "$$wanted" ] && [ -x $(BIN)/python ]; then \
		version='import sys; print(sys.version_info[:2])'; \
		[ "$$("$$wanted" -c "$$version")" = "$$($(BIN)/python -c "$$version")" ] || rm -rf "$(VENV)"; \
	fi; \
	if ! $(BIN)/python -m pip --version >/dev/null 2>&1 || ! $(BIN)/python -c '$(IS_USABLE)' 2>/dev/null; then \
		$(FIND_PYTHON); \
		echo "==> environment in $(VENV) ($$("$$python" --version))"; \
		"$$python" -m venv --clear "$(VENV)"; \
	fi; \
	rm -f $(VENV)/.runtime-* $(VENV)/.dev-* $(VENV)/.ops-*; \
	mkdir -p .cache; \
	echo "==> packages from requirements.lock (about 2 minutes on a fast line; then kept)"; \
	if ! command -v nvidia-smi >/dev/null 2>&1 \
			&& [ -z "$$PIP_EXTRA_INDEX_URL$$PIP_INDEX_URL$$PIP_FIND_LINKS" ]; then \
		echo "    no NVIDIA GPU here: README.md, \"Without a GPU\", saves a download of gigabytes"; \
	fi; \
	DS_BUILD_OPS=0 $(BIN)/python -m pip install -qq --no-compile -c requirements.lock -e .; \
	echo "    took $$(($$(date +%s) - start)) s"; \
	touch $@

$(DEV): $(RUNTIME)
	@set -e; \
	start=$$(date +%s); \
	echo "==> development tools from requirements.lock (seconds)"; \
	DS_BUILD_OPS=0 $(BIN)/python -m pip install -qq --no-compile -c requirements.lock -e '.[dev]'; \
	echo "    took $$(($$(date +%s) - start)) s"; \
	touch $@

# Otherwise built at DeepSpeed's first start, while the ranks wait. An interrupted build leaves a
# lock file behind, for which every later one would wait for ever.
$(OPS): $(RUNTIME)
	@start=$$(date +%s); \
	mkdir -p .cache "$(TORCH_EXTENSIONS_DIR)"; \
	rm -f "$(TORCH_EXTENSIONS_DIR)"/deepspeed_shm_comm/lock; \
	echo "==> DeepSpeed's CPU communication op (compiled once, a minute or two)"; \
	if $(WITH_VENV) DS_ACCELERATOR=cpu python -c '$(BUILD_OP)' >.cache/ops.log 2>&1; then \
		touch $@; \
		echo "    took $$(($$(date +%s) - start)) s"; \
	else \
		echo "    not built, going on: see .cache/ops.log. It needs g++ and the Python headers;" \
			"DeepSpeed tries again at its first start on a CPU, and trainer.engine: torch does without"; \
	fi
