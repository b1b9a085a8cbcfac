# Every target works as the first command after cloning: the environment is made when needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RESULTS ?= results

# What an experiment takes: make reproduce-table6 PROFILE=pretrained VOC=DIR ARCH=squeezenet1_1 WEIGHTS=FILE LIMIT=200
PROFILE ?= mini
ARGUMENTS = --profile $(PROFILE) --results $(RESULTS) $(if $(IMAGENET),--imagenet "$(IMAGENET)") \
	$(if $(VOC),--data "$(VOC)") $(if $(ARCH),--arch $(ARCH)) $(if $(WEIGHTS),--weights "$(WEIGHTS)") \
	$(if $(LIMIT),--limit $(LIMIT)) $(if $(SEED),--seed $(SEED)) $(if $(DEVICE),--device $(DEVICE)) \
	$(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(WORKERS),--workers $(WORKERS))

TABLE_ARGUMENTS = $(ARGUMENTS) $(if $(CALTECH),--caltech "$(CALTECH)") $(if $(SEEDS),--seeds $(SEEDS))
DETECTION_ARGUMENTS = $(ARGUMENTS) $(if $(RCNN),--rcnn $(RCNN)) $(if $(SEEDS),--seeds $(SEEDS)) \
	$(if $(CACHE_GB),--cache-gb $(CACHE_GB))

.DEFAULT_GOAL := help
.PHONY: help install test check clean claims convergence ablation-corners ablation-scale ablation-pooling ablation-fc \
	complexity benchmark reproduce-classification \
	reproduce-architectures reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 reproduce-table5 \
	reproduce-table6 reproduce-table7 reproduce-table8 reproduce-table9 reproduce-detection

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

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

reproduce-table1: $(STAMP)  ## ImageNet: the plain net and SPP-nets, single- and multi-size
	$(BIN)/python -m experiments.table1 $(TABLE_ARGUMENTS)

reproduce-table2: $(STAMP)  ## ImageNet: the centre crop against the whole image
	$(BIN)/python -m experiments.table2 $(TABLE_ARGUMENTS)

reproduce-table3: $(STAMP)  ## VOC 2007 classification by layer, network and view
	$(BIN)/python -m experiments.table3 $(TABLE_ARGUMENTS)

reproduce-table4: $(STAMP)  ## Caltech101 classification by layer, network and view
	$(BIN)/python -m experiments.table4 $(TABLE_ARGUMENTS)

reproduce-table5: $(STAMP)  ## VOC 2007 and Caltech101 beside other methods
	$(BIN)/python -m experiments.table5 $(TABLE_ARGUMENTS)

reproduce-classification: reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 reproduce-table5 claims  ## Tables 1 to 5 and their claims

reproduce-architectures: $(STAMP)  ## the journal's four architectures: no SPP, single-size, multi-size
	$(BIN)/python -m experiments.architectures $(TABLE_ARGUMENTS)

ablation-corners: $(STAMP)  ## corner crops of the entire image against those of its central square
	$(BIN)/python -m experiments.corners $(TABLE_ARGUMENTS)

ablation-scale: $(STAMP)  ## the scale of whole images on VOC's val half and on Caltech101
	$(BIN)/python -m experiments.scale $(TABLE_ARGUMENTS)

convergence: $(STAMP)  ## a picture of single- and multi-size training
	$(BIN)/python -m experiments.convergence $(ARGUMENTS)

claims: $(STAMP)  ## the paper's 35 claims against the tables measured so far
	$(BIN)/python -m experiments.claims --profile $(PROFILE) --results $(RESULTS)

reproduce-table6: $(STAMP)  ## detection: SPP-net at one and five scales, and R-CNN (main job)
	$(BIN)/python -m experiments.table6 $(DETECTION_ARGUMENTS)

ablation-pooling: $(STAMP)  ## detection: windows pooled over all scales against one scale a window
	$(BIN)/python -m experiments.scale_pooling $(DETECTION_ARGUMENTS)

ablation-fc: $(STAMP)  ## detection: fc layers of a quarter of the size
	$(BIN)/python -m experiments.fc_size $(DETECTION_ARGUMENTS)

complexity: $(STAMP)  ## detection: SPP-net's convolutions as a share of R-CNN's
	$(BIN)/python -m experiments.complexity --profile $(PROFILE) --results $(RESULTS) $(if $(ARCH),--arch $(ARCH)) \
		$(if $(PROTOCOL),--protocol $(PROTOCOL))

reproduce-table7: $(STAMP)  ## detection AP of every class by layer and scales
	$(BIN)/python -m experiments.table7 $(DETECTION_ARGUMENTS)

reproduce-table8: $(STAMP)  ## detection AP of every class beside R-CNN and other groups' methods
	$(BIN)/python -m experiments.table8 $(DETECTION_ARGUMENTS)

reproduce-table9: $(STAMP)  ## the combination of two SPP-nets
	$(BIN)/python -m experiments.table9 $(DETECTION_ARGUMENTS)

reproduce-detection: reproduce-table6 reproduce-table7 reproduce-table8 reproduce-table9 claims  ## Tables 6 to 9 and their claims

BENCHMARKS := pooling detect pretrain extract svm scaling

benchmark: $(STAMP)  ## our speed beside others' and this machine's limits: pooling, detect, pretrain, extract, svm, scaling
	@for subject in $(BENCHMARKS); do \
		$(BIN)/sppnet benchmark $$subject --out $(RESULTS)/benchmark $(if $(SEED),--seed $(SEED)) || exit; \
	done

clean:  ## remove runs and results, not the environment
	rm -rf runs $(RESULTS)
