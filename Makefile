# make demo    set everything up and show the main job on synthetic parts (DATA=folder: on your own)
# make test    set everything up and pass the tests
# make check   format, lint, types, layers
# CONTRIBUTING.md says what the others are for.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALL_TIMM := install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31
# mypy follows only strict editable installs, which list the files: a new or removed one means to install again.
EDITABLE := --config-settings editable_mode=strict --editable
FOLDERS := $(shell find runtime calibration export -type d -not -name __pycache__)

.PHONY: demo test check test-pythons test-timm test-arm64 benchmarks clean

demo: $(VENV)/.workstation
	$(BIN)/lineward demo $(if $(DATA),--data $(DATA))

test: $(VENV)/.development
	$(BIN)/python -m pytest

check: $(VENV)/.development
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The device's packages alone, on the oldest and the newest Python of current Jetsons.
test-pythons: $(VENV)-3.10/.device $(VENV)-3.12/.device

# Any timm model as backbone, in an environment of its own: timm needs torchvision, which is built for one torch alone.
test-timm: $(VENV)-timm/.timm
	$(VENV)-timm/bin/python -m pytest tests/export/test_timm.py

# The device's runtime on 64-bit Arm, emulated; needs root, and skips by name what is missing.
test-arm64:
	PYTHON=$(PYTHON) tests/arm64.sh

benchmarks: $(VENV)/.development
	$(BIN)/python -m benchmarks.accuracy
	$(BIN)/python -m benchmarks.device
	$(BIN)/python -m benchmarks.graphs
	$(BIN)/python -m benchmarks.training_memory

clean:
	rm -rf $(VENV) $(VENV)-* build dist demo *.egg-info

$(VENV)/.workstation: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) $(EDITABLE) '.[export]'
	touch $@

$(VENV)/.development: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) $(EDITABLE) '.[export,dev]'
	touch $@ $(VENV)/.workstation

# Never up to date; make looks for no pattern rule where a target is .PHONY.
.PHONY: always
$(VENV)-%/.device: always
	@set -e; for python in python$* "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$*.*/bin/python; do \
	  if "$$python" --version >/dev/null 2>&1; then \
	    test -x $(@D)/bin/python || "$$python" -m venv $(@D); \
	    $(@D)/bin/pip $(INSTALL) . pytest hypothesis; \
	    $(@D)/bin/python -m pytest tests/runtime; \
	    exit; \
	  fi; \
	done; echo "SKIPPED: the runtime's tests on Python $*: no such interpreter on this machine"

$(VENV)-timm/.timm: pyproject.toml $(FOLDERS)
	test -x $(VENV)-timm/bin/python || $(PYTHON) -m venv $(VENV)-timm
	$(VENV)-timm/bin/pip $(INSTALL_TIMM) $(EDITABLE) '.[timm,dev]'
	touch $@
