# make demo    set everything up and show the main job on synthetic parts (DATA=folder: on your own)
# make test    set everything up and pass the tests
# make check   format, lint, types, layers
# make tables  the paper's tables with the categories under DATA=folder, the paper's figures beside ours
# CONTRIBUTING.md says what the others are for.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := install --quiet --disable-pip-version-check --constraint constraints.txt
INSTALL_PEERS := install --quiet --disable-pip-version-check --constraint build/constraints-peers.txt
INSTALL_TIMM := install --quiet --disable-pip-version-check torch==2.14.1 torchvision==0.29.1 timm==1.0.31 anomalib==2.7.0
# mypy follows only strict editable installs, which list the files: a new or removed one means to install again.
EDITABLE := --config-settings editable_mode=strict --editable
# Cameras through Aravis need the system's GObject introspection to be built against.
GENICAM := $(shell pkg-config --exists gobject-introspection-1.0 cairo 2>/dev/null && echo ,genicam)
FOLDERS := $(shell find runtime calibration export -type d -not -name __pycache__)

.PHONY: demo test check test-pythons test-timm test-arm64 test-image test-image-arm64 test-gpu-emulated test-tensorrt kernel benchmarks tables outliers peers fuzz clean

demo: $(VENV)/.workstation
	$(BIN)/lineward demo $(if $(DATA),--data $(DATA))

# The offline tools: one test a core, each on one thread. Then the device's runtime, alone, since its parts come in time.
test: $(VENV)/.development
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 \
	  $(BIN)/python -m pytest -m "not slow" -n auto --dist worksteal --ignore tests/runtime
	$(BIN)/python -m pytest -m "not slow" tests/runtime

check: $(VENV)/.development
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports

# The device's packages alone, on the oldest and the newest Python of current Jetsons.
test-pythons: $(VENV)-3.10/.device $(VENV)-3.12/.device

# Any timm model as backbone, and the rivals of `make tables` against anomalib's own models, in an environment of its own:
# both need torchvision, which is built for one torch alone.
test-timm: $(VENV)-timm/.timm
	$(VENV)-timm/bin/python -m pytest tests/export/test_timm.py tests/benchmarks/accuracy/test_anomalib.py

# The device's runtime on 64-bit Arm, emulated; needs root, and skips by name what is missing.
test-arm64:
	PYTHON=$(PYTHON) tests/arm64.sh

# An archive of `lineward image` installed on this machine, as root, with no network and nothing left behind.
test-image: $(VENV)/.development
	PYTHON=$(abspath $(BIN))/python tests/image_x86_64.sh

# An archive of `lineward image` installed on 64-bit Arm, emulated, with no network; after `make test-arm64`.
test-image-arm64: $(VENV)/.development
	PYTHON=$(abspath $(BIN))/python tests/image_arm64.sh

# The fused kernel and its launcher without a GPU: real PyCUDA on an emulated driver, the shipped files rebuilt, and every
# seeded fault found. PyCUDA is built once, into a cache outside the repository; it needs g++ and CUDA's compiler.
test-gpu-emulated:
	@if command -v nvcc >/dev/null && command -v g++ >/dev/null; then \
	  set -e; \
	  $(MAKE) --no-print-directory $(VENV)-gpu/.gpu; \
	  $(VENV)-gpu/bin/python -m pytest tests/runtime/cuda tests/runtime/tensorrt tests/runtime/engines; \
	else echo "SKIPPED: the emulated GPU: no nvcc or no g++ on this machine"; fi

# The shipped TensorRT builder on TensorRT-RTX, which parses and builds without a GPU.
test-tensorrt: $(VENV)-tensorrt/.tensorrt $(VENV)/.development
	$(BIN)/python -m tests.export.write_graphs build/graphs
	LINEWARD_GRAPHS=build/graphs $(VENV)-tensorrt/bin/python -m pytest tests/runtime/tensorrt/test_rtx.py

# Coverage-guided fuzzing of what reads foreign bytes: SECONDS for each reader, ten minutes by default.
fuzz: $(VENV)-fuzz/.fuzz
	$(VENV)-fuzz/bin/python -m benchmarks.fuzz $(SECONDS)

kernel: $(VENV)-gpu/.gpu
	$(VENV)-gpu/bin/python -m lineward.export.cuda_kernel

benchmarks: $(VENV)/.development
	$(BIN)/python -m benchmarks.accuracy.presets
	$(BIN)/python -m benchmarks.device
	$(BIN)/python -m benchmarks.drift
	$(BIN)/python -m benchmarks.drift.dependence
	$(BIN)/python -m benchmarks.graphs
	$(BIN)/python -m benchmarks.hostile
	$(BIN)/python -m benchmarks.power_cuts
	$(BIN)/python -m benchmarks.precision
	$(BIN)/python -m benchmarks.similarity
	$(BIN)/python -m benchmarks.station
	$(BIN)/python -m benchmarks.tiles
	$(BIN)/python -m benchmarks.throughput
	$(BIN)/python -m benchmarks.training_memory
	$(BIN)/python -m benchmarks.calibration $${LINEWARD_DATA:-../shared/data}/mvtec_ad_384
	$(BIN)/python -m benchmarks.calibration.areas $${LINEWARD_DATA:-../shared/data}/mvtec_ad_384
	$(BIN)/python -m benchmarks.adaptation $${LINEWARD_DATA:-../shared/data}/mvtec_ad_384

# Goes on where it stopped: runs that finished are kept under build/, or in LINEWARD_CACHE.
tables: $(VENV)/.development
	$(BIN)/python -m benchmarks.accuracy.tables $(DATA)

# What defects slipped into the training set do to each system; goes on where it stopped, as `tables`.
outliers: $(VENV)/.development
	$(BIN)/python -m benchmarks.accuracy.outliers $(DATA)

# Lineward and its peers side by side, in an environment of their own (about 7 GB: anomalib needs torchvision); leave the
# machine alone meanwhile. Two variables that slow a current numpy down are left out.
peers: $(VENV)-peers/.peers
	env -u OPENBLAS_CORETYPE -u OPENBLAS_L2_SIZE $(VENV)-peers/bin/python -W ignore -m benchmarks.peers

clean:
	rm -rf $(VENV) $(VENV)-* build dist demo *.egg-info

$(VENV)/.workstation: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) $(EDITABLE) '.[export]'
	touch $@

$(VENV)/.development: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip $(INSTALL) $(EDITABLE) '.[export,benchmarks,station,opcua,fleet,parquet$(GENICAM),dev]'
	touch $@ $(VENV)/.workstation

# Never up to date; make looks for no pattern rule where a target is .PHONY.
.PHONY: always
$(VENV)-%/.device: always
	@set -e; for python in python$* "$${PYENV_ROOT:-$$HOME/.pyenv}"/versions/$*.*/bin/python; do \
	  if "$$python" --version >/dev/null 2>&1; then \
	    test -x $(@D)/bin/python || "$$python" -m venv $(@D); \
	    $(@D)/bin/pip $(INSTALL) '.[station,fleet]' pytest hypothesis; \
	    $(@D)/bin/python -m pytest tests/runtime -m "not slow" --ignore tests/runtime/station/test_faults.py; \
	    exit; \
	  fi; \
	done; echo "SKIPPED: the runtime's tests on Python $*: no such interpreter on this machine"

$(VENV)-gpu/.gpu: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(VENV)-gpu/bin/python || $(PYTHON) -m venv $(VENV)-gpu
	tests/runtime/cuda/build_pycuda.sh $(VENV)-gpu/bin/python
	$(VENV)-gpu/bin/pip $(INSTALL) $(EDITABLE) '.[dev,cuda-build]' onnx nvidia-cuda-nvdisasm==13.5.37
	touch $@

$(VENV)-tensorrt/.tensorrt: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(VENV)-tensorrt/bin/python || $(PYTHON) -m venv $(VENV)-tensorrt
	$(VENV)-tensorrt/bin/pip $(INSTALL) $(EDITABLE) '.[dev]' onnx tensorrt-rtx-cu13==1.7.1.116
	touch $@

$(VENV)-peers/.peers: pyproject.toml constraints.txt benchmarks/peers/constraints.txt $(FOLDERS)
	test -x $(VENV)-peers/bin/python || $(PYTHON) -m venv $(VENV)-peers
	mkdir -p build
	grep -v -e '^torch==' -e '^onnxruntime==' constraints.txt | cat - benchmarks/peers/constraints.txt >build/constraints-peers.txt
	$(VENV)-peers/bin/pip $(INSTALL_PEERS) anomalib faiss-cpu openvino torchvision $(EDITABLE) '.[export,benchmarks]'
	touch $@

$(VENV)-fuzz/.fuzz: pyproject.toml constraints.txt $(FOLDERS)
	test -x $(VENV)-fuzz/bin/python || $(PYTHON) -m venv $(VENV)-fuzz
	$(VENV)-fuzz/bin/pip install --quiet --disable-pip-version-check $(EDITABLE) . atheris==3.0.0
	touch $@

$(VENV)-timm/.timm: pyproject.toml $(FOLDERS)
	test -x $(VENV)-timm/bin/python || $(PYTHON) -m venv $(VENV)-timm
	$(VENV)-timm/bin/pip $(INSTALL_TIMM) $(EDITABLE) '.[timm,dev]'
	touch $@
