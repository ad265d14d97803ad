# make demo: from nothing to a model you talk to.   make test: everything checked at small size.
PYTHON ?= python3
PYTEST ?=
BIN := .venv/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
BENCH :=
BENCH_PIP := .venv-bench/bin/python -m pip --disable-pip-version-check --quiet

export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(CURDIR)/constraints.txt

.PHONY: install demo test check test-browser test-load test-harness torture audit bench clean

install: .venv/installed

# $(1)/bin/python with a pip. Where Debian's python3 comes without python3-venv it cannot put pip into an environment;
# the pip outside does it then.
define environment
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "ayni needs Python 3.11 or newer, this is $$($(PYTHON) --version 2>&1); say make PYTHON=python3.12"; exit 1; }
	@test -x $(1)/bin/python || $(PYTHON) -c 'import ensurepip' 2>/dev/null || $(PYTHON) -m pip --version >/dev/null 2>&1 \
		|| { echo "no pip and no ensurepip; on Debian and Ubuntu: sudo apt-get install python3-venv"; exit 1; }
	@$(1)/bin/python -m pip --version >/dev/null 2>&1 || \
		if $(PYTHON) -c 'import ensurepip' 2>/dev/null; then $(PYTHON) -m venv $(1); else $(PYTHON) -m venv --without-pip $(1) \
		&& PIP_CONSTRAINT= $(PYTHON) -m pip --python $(1)/bin/python --quiet install pip; fi
endef

# torch first and alone: a looser request takes the newest build, with gigabytes of CUDA.
.venv/installed: pyproject.toml constraints.txt
	$(call environment,.venv)
	@echo "installing into .venv; the first time takes a few minutes"
	@$(PIP) install torch==2.13.0
	@$(PIP) install -e .
	@touch $@

.venv/installed-dev: .venv/installed
	@$(PIP) install -e '.[dev]'
	@touch $@

demo: .venv/installed
	@$(BIN)/ayni run recipes/mini.yaml

# One process a core; what a module prepares for its tests is prepared once. PYTEST="-n 0 tests/test_model.py": one file.
test: .venv/installed-dev
	@$(BIN)/pytest -n auto --dist loadscope $(PYTEST)

check: .venv/installed-dev
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

# Kills every stage 20 times at random places (make test: twice), and at every operation on the disk, which also loses
# its power there, is full or refuses; and compares what is left in the end with an uninterrupted run. A small campaign
# is killed 30 times. Then reads every format broken in 10,000 ways (make test: 60), each of which is sound or one line of error.
torture: .venv/installed-dev
	@AYNI_KILLS=20 AYNI_FAULTS=20 $(BIN)/pytest tests/test_torture.py tests/test_faults.py -n auto --timeout=0
	@AYNI_KILLS=30 $(BIN)/pytest tests/test_campaign.py -n 0 --timeout=0
	@AYNI_MUTATIONS=10000 $(BIN)/pytest -n auto --dist load tests/test_mutations.py tests/test_formats_fuzz.py \
		tests/test_mutated_weights.py tests/test_feedback_damage.py tests/test_feedback_page_fuzz.py --timeout=0

# A person's whole visit to the annotation page in a real Chromium. AYNI_PICTURES=1: and docs/pictures/ anew.
test-browser: .venv/installed-dev .venv/axe.min.js
	@test -x "$(CHROMIUM)" || command -v chromium >/dev/null || { test "$$(id -u)" = 0 && apt-get update -qq \
		&& DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium fonts-dejavu-core; } >/dev/null 2>&1 \
		|| { echo "no Chromium: sudo apt-get install chromium, or say make test-browser CHROMIUM=/where/it/is"; exit 1; }
	@CHROMIUM="$(CHROMIUM)" $(BIN)/pytest tests/browser $(PYTEST)

.venv/axe.min.js: tests/browser/fetch_axe.py | .venv/installed-dev
	@$(BIN)/python $< $@

# 32 people judge while the server is killed 20 times (make test: few, twice), its disk fills up, its database restarts
# and 2,000 sockets say half a request, on both databases; then how long people wait without all that. Alone on the machine, some minutes. AYNI_RESULTS=1: and docs/results/annotate-load.json anew.
test-load: .venv/installed-dev
	@$(BIN)/pytest tests/load --timeout=0 -s $(PYTEST)

# A tiny task of lm-evaluation-harness on an exported model, in an environment of its own (docs/dependencies.md).
test-harness: .venv-harness/installed
	@.venv-harness/bin/python -m pytest tests/harness --timeout=0 $(PYTEST)

.venv-harness/installed: pyproject.toml constraints.txt
	$(call environment,.venv-harness)
	@echo "installing lm-evaluation-harness into .venv-harness; the first time takes a few minutes"
	@.venv-harness/bin/python -m pip --disable-pip-version-check --quiet install torch==2.13.0
	@.venv-harness/bin/python -m pip --disable-pip-version-check --quiet install -e . 'lm_eval[hf]==0.4.13' pytest pytest-timeout
	@touch $@

# Known advisories against every pinned version, as far as the index offers them.
audit: .venv-audit/installed
	@.venv-audit/bin/pip-audit --disable-pip --no-deps --requirement constraints.txt

.venv-audit/installed:
	$(call environment,.venv-audit)
	@PIP_CONSTRAINT= .venv-audit/bin/python -m pip --disable-pip-version-check --quiet install pip-audit==2.10.1
	@touch $@

# Every work beside its peers: 25 minutes on two cores with nothing else running. BENCH=--long: an hour, BENCH='--device
# cuda': one GPU. Writes docs/results/benchmarks-MACHINE.json and the tables of docs/benchmarks.md.
bench: .venv-bench/installed
	@.venv-bench/bin/python -m benchmarks.everything $(BENCH)

# The peers want an environment of their own; TRL's last release with PPO lies beside the newer one.
.venv-bench/installed: pyproject.toml constraints.txt benchmarks/peers.txt benchmarks/peers-ppo.txt
	$(call environment,.venv-bench)
	@echo "installing the peers into .venv-bench; the first time takes a few minutes"
	@$(BENCH_PIP) install torch==2.13.0
	@$(BENCH_PIP) install -e . -r benchmarks/peers.txt
	@rm -rf .venv-bench/trl-1.12
	@$(BENCH_PIP) install --no-deps --target .venv-bench/trl-1.12 -r benchmarks/peers-ppo.txt
	@touch $@

# llama.cpp beside our sampling, built from source with a C++ compiler and CMake.
.venv-bench/llama-cpp: .venv-bench/installed benchmarks/peers-llama.txt
	@echo "building llama.cpp into .venv-bench: ten minutes"
	@$(BENCH_PIP) install -r benchmarks/peers-llama.txt
	@touch $@

clean:
	rm -rf .venv .venv-audit .venv-bench .venv-harness build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
