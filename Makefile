# Every target works as the first command after cloning: the environment is made when needed.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RESULTS ?= results

# What an experiment takes: make reproduce-table6 PROFILE=pretrained VOC=DIR ARCH=squeezenet1_1 WEIGHTS=FILE LIMIT=200
PROFILE ?= mini
REPRODUCE = $(BIN)/sppnet reproduce --profile $(PROFILE) --results "$(RESULTS)" \
	$(if $(IMAGENET),--imagenet "$(IMAGENET)") $(if $(VOC),--data "$(VOC)") $(if $(CALTECH),--caltech "$(CALTECH)") \
	$(if $(ARCH),--arch $(ARCH)) $(if $(WEIGHTS),--weights "$(WEIGHTS)") $(if $(PROPOSALS),--proposals "$(PROPOSALS)") \
	$(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(RCNN),--rcnn $(RCNN)) $(if $(LIMIT),--limit $(LIMIT)) \
	$(if $(SEED),--seed $(SEED)) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(DEVICE),--device $(DEVICE)) \
	$(if $(JOBS),--jobs $(JOBS)) $(if $(WORKERS),--workers $(WORKERS)) $(if $(CACHE_GB),--cache-gb $(CACHE_GB)) \
	$(if $(REMAKE),--remake)

.DEFAULT_GOAL := help
.PHONY: help install test test-slow check check-gpu clean picture claims convergence ablation-corners ablation-scale ablation-pooling ablation-fc \
	ablation-views ablation-warp complexity benchmark report reproduce-classification \
	reproduce-architectures reproduce-table1 reproduce-table2 reproduce-table3 reproduce-table4 reproduce-table5 \
	reproduce-table6 reproduce-table7 reproduce-table8 reproduce-table9 reproduce-detection reproduce-all quick-look \
	mini-statistics

help:  ## list the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 26

install: $(STAMP)  ## make .venv with the pinned dependencies and sppnet; CPU=1: without CUDA

# CPU=1 takes PyTorch without CUDA from PyTorch's own index: some hundred megabytes in place of gigabytes.
$(STAMP): setup.cfg setup.py pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11, 4) <= sys.version_info[:3] < (3, 15))' || \
		{ echo 'Python 3.11.4 to 3.14 is needed: make PYTHON=python3.12'; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade --constraint constraints.txt \
		$(if $(CPU),--extra-index-url https://download.pytorch.org/whl/cpu) --editable '.[test]'
	@touch $@

test: $(STAMP)  ## run the tests, but for the slow ones
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: $(STAMP)  ## run the slow tests
	$(BIN)/python -m pytest -q -m slow

check: $(STAMP)  ## lint, check types, run the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -m "not slow"

check-gpu:  ## test and time what runs on a GPU, with PYTHON as it is: nothing is installed
	@$(PYTHON) tests/check_gpu.py --out "$(RESULTS)/check-gpu.json"

reproduce-table1: $(STAMP)  ## ImageNet: the plain net and SPP-nets, single- and multi-size
	$(REPRODUCE) table1

reproduce-table2: $(STAMP)  ## ImageNet: the centre crop against the whole image
	$(REPRODUCE) table2

reproduce-table3: $(STAMP)  ## VOC 2007 classification by layer, network and view
	$(REPRODUCE) table3

reproduce-table4: $(STAMP)  ## Caltech101 classification by layer, network and view
	$(REPRODUCE) table4

reproduce-table5: $(STAMP)  ## VOC 2007 and Caltech101 beside other methods
	$(REPRODUCE) table5

reproduce-classification: $(STAMP)  ## Tables 1 to 5 and their claims
	$(REPRODUCE) table1 table2 table3 table4 table5 claims

reproduce-architectures: $(STAMP)  ## the journal's four architectures: no SPP, single-size, multi-size
	$(REPRODUCE) architectures

ablation-corners: $(STAMP)  ## corner crops of the entire image against those of its central square
	$(REPRODUCE) corners

ablation-scale: $(STAMP)  ## the scale of whole images on VOC's val half and on Caltech101
	$(REPRODUCE) scale

ablation-views: $(STAMP)  ## the journal's 96 views on feature maps against ten views
	$(REPRODUCE) views

ablation-warp: $(STAMP)  ## the journal's warped images of Caltech101 against whole ones
	$(REPRODUCE) warp

convergence: $(STAMP)  ## a picture of single- and multi-size training
	$(REPRODUCE) convergence

claims: $(STAMP)  ## the paper's 35 claims against the tables measured so far
	$(REPRODUCE) claims

reproduce-table6: $(STAMP)  ## detection: SPP-net at one and five scales, and R-CNN (main job)
	$(REPRODUCE) table6

ablation-pooling: $(STAMP)  ## detection: windows pooled over all scales against one scale a window
	$(REPRODUCE) scale_pooling

ablation-fc: $(STAMP)  ## detection: fc layers of a quarter of the size
	$(REPRODUCE) fc_size

complexity: $(STAMP)  ## detection: SPP-net's convolutions as a share of R-CNN's
	$(REPRODUCE) complexity

reproduce-table7: $(STAMP)  ## detection AP of every class by layer and scales
	$(REPRODUCE) table7

reproduce-table8: $(STAMP)  ## detection AP of every class beside R-CNN and other groups' methods
	$(REPRODUCE) table8

reproduce-table9: $(STAMP)  ## the combination of two SPP-nets
	$(REPRODUCE) table9

reproduce-detection: $(STAMP)  ## Tables 6 to 9 and their claims
	$(REPRODUCE) table6 table7 table8 table9 claims

reproduce-all: $(STAMP)  ## the nine tables and all claims
	$(REPRODUCE) all

quick-look: PROFILE := tiny
quick-look: $(STAMP)  ## all of reproduce-all on data so small that the numbers mean nothing
	$(REPRODUCE) all

mini-statistics: $(STAMP)  ## the objects and windows of the embedded VOC set, beside those of VOC=DIR
	$(BIN)/sppnet data statistics --mini $(if $(VOC),"$(VOC)")

report: $(STAMP)  ## one page, results/PROFILE/report.html, with all that was measured
	$(BIN)/sppnet report --profile $(PROFILE) --results "$(RESULTS)"

BENCHMARKS := pooling detect pretrain extract svm scaling

benchmark: $(STAMP)  ## our speed beside others' and this machine's limits: pooling, detect, pretrain, extract, svm, scaling
	@for subject in $(BENCHMARKS); do \
		$(BIN)/sppnet benchmark $$subject --out "$(RESULTS)/benchmark" $(if $(SEED),--seed $(SEED)) || exit; \
	done

picture: $(STAMP)  ## draw the README's picture anew
	$(BIN)/python docs/draw_picture.py

clean:  ## remove results and cached feature maps; ALL=1: trained networks and all other runs, too
	rm -rf "$(RESULTS)" $(if $(ALL),runs,runs/*/cache)
