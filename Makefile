# Two commands do everything, their own set-up included: `make demo` and `make test`.
# Each step leaves a stamp, so a repeated call does only what changed. `make help` lists the targets.

PYTHON ?= python3
VENV ?= .venv
BUILD ?= build/make
# ON: compiler warnings are errors (CI). Empty: as in the last build.
WERROR ?=
# An index to take PyTorch from, e.g. https://download.pytorch.org/whl/cpu; empty: pip's own.
TORCH_INDEX ?=
# Extra arguments of pytest, e.g. PYTEST="-k unet -x".
PYTEST ?=
# Tests run in this many processes, a file's in one of them.
TEST_PROCESSES ?= auto
# Of `make fuzz`: seconds for each target, how many at a time, which (all if empty), where the outcome is kept, and a
# page whose table is written.
FUZZ_SECONDS ?= 120
FUZZ_JOBS ?= 2
FUZZ_TARGETS ?=
FUZZ_KEEP ?= build/fuzz
FUZZ_WRITE ?=
# 1: the short form of the benchmarks.
QUICK ?=

export CMAKE_BUILD_PARALLEL_LEVEL ?= 2
export PIP_DISABLE_PIP_VERSION_CHECK = 1

PY = $(VENV)/bin/python
STAMPS = $(VENV)/.stamps
SIDE_BY_SIDE = -n $(TEST_PROCESSES) --maxprocesses 8 --dist loadfile
SANITIZE = build/sanitize
CPP = CMakeLists.txt $(shell find csrc)

.PHONY: help demo test test-all lint format stubs docs fuzz bench build dev ctest sanitize clean distclean

help:
	@sed -n 's/^\([a-z-]*\):.*## /\1: /p' $(MAKEFILE_LIST)

demo: $(STAMPS)/vpd ## build, segment shipped images by sentence, sweep timesteps, write pictures to demo-out/
	$(VENV)/bin/vpd demo --out demo-out

test: dev ctest ## build and run the C++ and Python tests
	$(PY) -m pytest $(SIDE_BY_SIDE) $(PYTEST)

test-all: dev sanitize ctest ## the same with slow tests, notebooks and sanitizers
	$(PY) -m pytest $(SIDE_BY_SIDE) -m "slow or not slow" $(PYTEST)

lint: dev ## everything that reads the code without running it
	tools/lint.sh $(VENV)/bin

format: dev ## rewrite Python and C++ in the project's style
	$(VENV)/bin/ruff check --fix .
	$(VENV)/bin/ruff format .
	find csrc tests/cpp examples -name '*.h' -o -name '*.cpp' | xargs $(VENV)/bin/clang-format -i

stubs: dev ## regenerate vpd/_C.pyi and docs/api.md from the code
	$(PY) tools/stubs.py
	$(PY) tools/api.py

docs: dev ## the documentation site in build/docs
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build

# The C++ readers are compiled once more, by Clang, whose libFuzzer makes the inputs.
fuzz: dev ## damaged files for every reader, each for FUZZ_SECONDS; FUZZ_TARGETS names some
	tools/preflight.sh $(PYTHON) --fuzz
	$(VENV)/bin/cmake -S . -B build/fuzz -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	  -DCMAKE_CXX_COMPILER=clang++ -DPython_EXECUTABLE=$(abspath $(PY)) -DVPD_PYTHON=OFF -DVPD_FUZZ=ON
	$(VENV)/bin/cmake --build build/fuzz --target vpd_fuzz
	$(PY) tools/fuzz --seconds $(FUZZ_SECONDS) --jobs $(FUZZ_JOBS) --keep $(FUZZ_KEEP) \
	  $(if $(FUZZ_TARGETS),--target $(FUZZ_TARGETS)) $(if $(FUZZ_WRITE),--write $(FUZZ_WRITE))

bench: dev ## run every benchmark; JSON goes to build/bench/
	@mkdir -p build/bench
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
	  echo "== $$script"; \
	  $(PY) $$script --json $(if $(QUICK),--quick) > build/bench/$$(basename $$script .py).json || exit 1; \
	done

build: $(STAMPS)/vpd ## the virtual environment with the compiled package, editable
dev: $(STAMPS)/dev ## the same with what training, tests, lint and docs need

$(STAMPS)/venv:
	tools/preflight.sh $(PYTHON)
	$(PYTHON) -m venv $(VENV)
	@mkdir -p $(STAMPS) && touch $@

$(STAMPS)/torch: $(STAMPS)/venv
	$(PY) -m pip install torch==2.13.0 $(if $(TORCH_INDEX),--index-url $(TORCH_INDEX))
	@touch $@

$(STAMPS)/vpd: $(STAMPS)/torch pyproject.toml $(CPP)
	$(PY) -m pip install "scikit-build-core>=0.10" "cmake>=3.22" ninja "cmeel-eigen>=3.4"
	$(PY) -m pip install --no-build-isolation --config-settings=build-dir=$(BUILD) \
	  $(if $(WERROR),--config-settings=cmake.define.VPD_WERROR=$(WERROR)) --editable .
	@touch $@

$(STAMPS)/dev: $(STAMPS)/vpd tools/extras.py
	$(PY) tools/extras.py dev | $(PY) -m pip install -r /dev/stdin
	@touch $@

# The C++ tests are added to the folder that pip built in, so the core is compiled once.
ctest: $(STAMPS)/vpd
	tools/preflight.sh $(PYTHON) --tests
	$(VENV)/bin/cmake -DVPD_TESTS=ON $(BUILD)
	$(VENV)/bin/cmake --build $(BUILD)
	$(VENV)/bin/ctest --test-dir $(BUILD) --output-on-failure

# Leaks are not looked for: PyTorch keeps registries until the process ends.
sanitize: $(STAMPS)/vpd ## the C++ tests under AddressSanitizer and UndefinedBehaviorSanitizer
	tools/preflight.sh $(PYTHON) --tests
	$(VENV)/bin/cmake -S . -B $(SANITIZE) -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(VENV))/bin/ninja \
	  -DPython_EXECUTABLE=$(abspath $(PY)) -DVPD_PYTHON=OFF -DVPD_TESTS=ON -DVPD_FUZZ=ON -DCMAKE_BUILD_TYPE=RelWithDebInfo \
	  -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O1 -g1" \
	  -DCMAKE_CXX_FLAGS="-fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer"
	$(VENV)/bin/cmake --build $(SANITIZE)
	ASAN_OPTIONS=detect_leaks=0 $(VENV)/bin/ctest --test-dir $(SANITIZE) --output-on-failure

clean: ## remove what was built; the virtual environment stays
	rm -rf build dist demo-out .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(STAMPS)/vpd
	find . -name __pycache__ -not -path "./$(VENV)/*" -prune -exec rm -rf {} +

distclean: clean ## remove the virtual environment too
	rm -rf $(VENV)
