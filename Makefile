# The project's commands; `make help` lists them.
PYTHON ?= python3
BIN := $(CURDIR)/.venv/bin
export PATH := $(BIN):$(PATH)
# Tiny models are slower on two threads, and two threads change bits.
export OMP_NUM_THREADS ?= 1
export HF_HUB_DISABLE_TELEMETRY ?= 1
export TOKENIZERS_PARALLELISM ?= false
export PYTHONHASHSEED ?= 0
export DVC_NO_ANALYTICS := 1
# A run is dozens of processes, and the tests are hundreds: each would compile every module anew.
export PYTHONDONTWRITEBYTECODE :=
# What a user gives reaches the shell in variables alone, where it is never code; $(value) keeps make
# from reading it as make.
$(foreach given,DATA STOP PROFILE REPO MODEL ARGS,$(eval override $(given) := $$(value $(given))))
export DATA STOP PROFILE REPO MODEL ARGS
# what needs no hub
demo local chat s3-demo check test: export HF_HUB_OFFLINE ?= 1

.PHONY: help install demo local chat s3-demo preflight forecast publish lint check test format lock clean

help:  ## show this list
	@grep -E '^[a-z0-9-]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 12

install: .venv/installed  ## create .venv and install the pinned dependencies

.venv/installed: requirements.lock
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "error: Python %d.%d is too old; make PYTHON=python3.11 install" % sys.version_info[:2])'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	@touch $@

demo: install  ## run the whole recipe, embedded: no GPU, no key, no network
	@python -m bezoar.sources.link
	@python -m bezoar.params embedded
	@python -m bezoar.recipe stop never
	@python -m demos.lanes
	dvc repro
	@python -m bezoar.report

local: install  ## run it on your own files: make local DATA=folder [STOP=sft]
	@test -n "$$DATA" || { echo "error: make local: DATA is not set; make local DATA=folder"; exit 2; }
	@python -m bezoar.sources.link "$$DATA"
	@python -m bezoar.params local
	@python -m bezoar.recipe stop "$${STOP:-never}"
	dvc repro
	@python -m bezoar.report

chat: install  ## talk with a model: make chat [MODEL=sft or a folder] [ARGS=--help]
	@python -m bezoar.talk $$ARGS "$$MODEL"

s3-demo: install  ## push the finished demo to S3 on loopback; pull it elsewhere
	@python -m demos.s3

preflight: install  ## what stops a run, and what it takes: make preflight PROFILE=paper
	@python -m bezoar.preflight $$PROFILE

forecast: install  ## what the active profile will ask of models, and what that will cost
	@dvc repro --quiet fetch@dolly fetch@flan fetch@topics fetch@mt_bench
	@python -m bezoar.forecast

publish: install  ## what would go to the Hub: make publish REPO=user/name [ARGS=--push]
	@test -n "$$REPO" || { echo "error: make publish: REPO is not set; make publish REPO=user/name"; exit 2; }
	@python -m bezoar.publish "$$REPO" $$ARGS

lint: install  ## ruff, mypy --strict and import-linter
	ruff check .
	ruff format --check .
	mypy
	lint-imports

check: lint  ## what lint does, and the quick tests: before every commit
	pytest -m "not slow" -n auto --dist loadscope

test: install  ## all tests, the whole embedded recipe among them
	pytest -n auto --dist loadscope --durations=10

format: install  ## sort imports, format, mend what ruff can
	ruff check --fix .
	ruff format .

lock:  ## resolve pyproject.toml into requirements.lock
	rm -rf .venv && $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  $$($(BIN)/python -c 'import tomllib; p = tomllib.load(open("pyproject.toml", "rb"))["project"]; print(*(f"{d!r}" for d in p["dependencies"] + p["optional-dependencies"]["dev"]))' | tr -d "'")
	$(BIN)/python -m pip freeze --exclude pip | sed -E 's/\+cpu$$//' > requirements.lock
	@touch .venv/installed

clean:  ## remove .venv and what the pipeline wrote (the DVC cache stays)
	rm -rf .venv
	git clean -fdXq data models metrics
