# Every target works as the first command after cloning: the environment is made when needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RESULTS ?= results

# What an experiment takes: make reproduce-table6 PROFILE=pretrained VOC=DIR ARCH=squeezenet1_1 WEIGHTS=FILE LIMIT=200
PROFILE ?= mini
ARGUMENTS = --profile $(PROFILE) --results $(RESULTS) \
	$(if $(VOC),--data "$(VOC)") $(if $(ARCH),--arch $(ARCH)) $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	$(if $(LIMIT),--limit $(LIMIT)) $(if $(SEED),--seed $(SEED)) $(if $(DEVICE),--device $(DEVICE)) \
	$(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(WORKERS),--workers $(WORKERS))

.DEFAULT_GOAL := help
.PHONY: help install test check reproduce-table6 clean

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

install: $(STAMP)  ## make .venv with the pinned dependencies and sppnet

$(STAMP): setup.cfg pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
		{ echo 'Python 3.11 to 3.13 is needed: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt --editable '.[test]'
	@touch $@

test: $(STAMP)  ## run the tests
	$(BIN)/python -m pytest -q

check: $(STAMP)  ## lint, check types, run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q

reproduce-table6: $(STAMP)  ## detection: SPP-net at one and five scales, and R-CNN (main job)
	$(BIN)/python -m experiments.table6 $(ARGUMENTS) $(if $(RCNN),--rcnn $(RCNN)) $(if $(IMAGENET),--imagenet "$(IMAGENET)")

clean:  ## remove runs and results, not the environment
	rm -rf runs $(RESULTS)
