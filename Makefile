# `make report` measures this machine; `make test` proves the code. Settings:
#   TORCH=cpu|cuda|none  which torch to install: by default cuda where an NVIDIA driver is loaded, else cpu
#   TORCH_INDEX=URL      where else to look for torch (README: a machine without a GPU)
#   APT=1                let apt-get install what the system lacks; CI=true implies it
PYTHON ?= python3
TORCH ?= $(if $(wildcard /proc/driver/nvidia/version),cuda,cpu)
APT ?= $(if $(CI),1)
$(if $(filter cpu cuda none,$(TORCH)),,$(error TORCH=$(TORCH) is unknown; it is cpu, cuda or none))

BIN := .venv/bin
READY := .venv/ready-$(TORCH)
TOOLS := .venv/ready-to-test
SOURCES := $(shell find impls benchmarks -name CMakeLists.txt -o -name '*.cpp' -o -name '*.h')
PINS := $(if $(filter cuda,$(TORCH)),.venv/constraints.txt,constraints.txt)
RELEASE := $(shell sed -n 's/^torch==//p' constraints.txt)
# The suffix names the CPU build, so that the CUDA build can never come in its place.
WHEEL := torch==$(RELEASE)$(if $(filter cpu,$(TORCH)),+cpu)
EXTRAS := $(if $(filter-out none,$(TORCH)),[all])
INSTALL = $(BIN)/python -m pip install --quiet --constraint $(PINS)

.PHONY: setup report test lint compile-all headline headline-activations study-compare clean preflight

report: $(READY)
	@$(BIN)/ulproof run --preset quick

# What the scripts in .ci/ need.
setup: $(TOOLS)

test: lint
	@$(BIN)/python -m pytest --numprocesses 2 --dist loadfile

# mypy can't follow an editable install's import hook, so it gets the package as a folder of links.
lint: $(TOOLS)
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@mkdir -p build/typing/ulproof && touch build/typing/ulproof/__init__.py
	@ln -sfn $(addprefix $(CURDIR)/,impls benchmarks reports) build/typing/ulproof/
	@$(BIN)/mypy

compile-all: $(TOOLS)
	@$(BIN)/python -m ulproof.benchmarks.compile --all

headline: $(READY)
	@$(BIN)/python -m ulproof.benchmarks.headline

headline-activations: $(READY)
	@$(BIN)/python -m ulproof.benchmarks.headline_activations

# Does `ulproof compare` deserve trust? QUICK=1 takes 20 minutes, the whole some 4 hours; both go on where they were stopped.
study-compare: $(TOOLS)
	@$(BIN)/python tools/study_compare.py $(if $(QUICK),--quick)

clean:
	rm -rf .venv build .study .asv .benchmarks .mypy_cache .pytest_cache .ruff_cache

preflight:
	@PYTHON='$(PYTHON)' TORCH=$(TORCH) APT=$(APT) tools/preflight $(READY)

$(BIN)/pip: | preflight
	@$(PYTHON) -m venv .venv

$(READY): constraints.txt pyproject.toml $(SOURCES) | preflight $(BIN)/pip
	@rm -f .venv/ready-*
	@grep -vE '^(triton|cuda-|nvidia-)' constraints.txt > .venv/constraints.txt
	@$(INSTALL) pip && $(INSTALL) --group build
ifeq ($(TORCH),none)
	@$(BIN)/python -m pip uninstall --quiet --yes torch triton
else
	@$(INSTALL) $(if $(TORCH_INDEX),--extra-index-url '$(TORCH_INDEX)') $(WHEEL) || { tools/preflight no-torch; exit 1; }
endif
	@$(INSTALL) --no-build-isolation --editable '.$(EXTRAS)'
	@touch $@

$(TOOLS): $(READY)
	@$(INSTALL) --group test
	@touch $@
