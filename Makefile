# The commands of this repository. `make help` lists them.
#
# Every command does the set-up that it needs, once: see tools/setup.sh.
SHELL := /bin/sh
.DELETE_ON_ERROR:
.SUFFIXES:

JOBS ?= $(shell nproc)
BUILD ?= build
FUZZ_SECONDS ?= 10
SOAK_SECONDS ?= 60
FUZZ_TARGETS ?= fuzzers
QUESTION ?= What is the capital of France?

CACHE := $(or $(TTPU_CACHE),$(if $(XDG_CACHE_HOME),$(XDG_CACHE_HOME)/ttpu,$(HOME)/.cache/ttpu))
PYTHON := $(CACHE)/venv/bin/python
SMOLLM2 := $(CACHE)/models/smollm2-135m-instruct-q4_1.gguf
export PATH := $(PATH):$(HOME)/.cargo/bin

SOURCES = $(shell find ttpu cli python tests benchmarks examples -name '*.h' -o -name '*.cc' -o -name '*.cpp')
CMAKE_FLAGS ?=
CONFIGURE = cmake -S . -G Ninja $(CMAKE_FLAGS)
CTEST = ctest --output-on-failure --no-tests=error -j $(JOBS)

.DEFAULT_GOAL := build
.PHONY: help setup test-setup tpu-kernels tpu-kernels-test build test-build demo test ctest pytest device-test check lint format format-check tidy layers \
        sanitize sanitize-address sanitize-thread sanitize-thread-load fuzz bench clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' Makefile | awk -F ':.*## ' '{ printf "make %-21s %s\n", $$1, $$2 }'

setup: ## install what a build needs
	@tools/setup.sh system rust

test-setup: setup
	@tools/setup.sh python plugins models

tpu-kernels: ## install what lowers kernels for TPU (optional)
	@tools/setup.sh tpu_kernels

tpu-kernels-test: tpu-kernels ## those kernels, interpreted on the CPU, beside float64
	$(CACHE)/tpu-kernels-venv/bin/python tests/tpu_kernels/check_numerics.py
	$(CACHE)/tpu-kernels-venv/bin/python tests/tpu_kernels/check_sequences.py
	$(CACHE)/tpu-kernels-venv/bin/python tests/tpu_kernels/check_experts.py
	$(CACHE)/tpu-kernels-venv/bin/python tests/tpu_kernels/check_filter.py

# $(call configure,FLAGS) speaks only when it fails.
configure = $(CONFIGURE) -B $(BUILD) $(1) >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }; rm -f $(BUILD).log

build: setup ## build/ttpu
	@$(call configure)
	cmake --build $(BUILD) -j $(JOBS) --target ttpu

# Everything: the tests, the examples and the Python package in $(BUILD)/python.
test-build: setup test-setup
	@$(call configure,-DTTPU_BUILD_PYTHON=ON -DPython_EXECUTABLE=$(PYTHON))
	cmake --build $(BUILD) -j $(JOBS)

demo: build ## a real model answers, and is compiled for a TPU
	@tools/setup.sh demo
	$(BUILD)/ttpu generate $(SMOLLM2) --chat --prompt '$(QUESTION)' --stats
	$(BUILD)/ttpu compile $(SMOLLM2) --topology v5e:2x2

test: layers format-check test-build ## everything: set-up, build, tests, layers and format
	$(MAKE) ctest pytest

ctest: test-build ## the C++ tests
	cd $(BUILD) && $(CTEST)

pytest: test-build ## the Python tests: of the package, the command, the examples and the tools
	TTPU_BUILD=$(BUILD) PYTHONPATH=$(BUILD)/python $(PYTHON) -m pytest -q

DEVICE ?= cuda
device-test: test-build ## a GPU (or DEVICE=tpu) beside the CPU; skips what is not there
	TTPU_TEST_DEVICE=$(DEVICE) TTPU_BUILD=$(BUILD) $(PYTHON) -m pytest -rs tests/cli/test_device.py

check: lint ## the same as lint
lint: layers format-check tidy ## layers, format and clang-tidy

layers: ## the order of the layers
	python3 tools/check_layers.py

format-check: setup ## is every file formatted?
	@clang-format --dry-run -Werror $(SOURCES)

format: setup ## format every file
	clang-format -i $(SOURCES)

tidy: test-build ## clang-tidy, on what has changed
	python3 tools/tidy.py $(BUILD) --jobs $(JOBS) ttpu cli python

sanitize: sanitize-address sanitize-thread ## the tests under the sanitizers

ASAN = ASAN_OPTIONS=detect_leaks=1:detect_odr_violation=0:abort_on_error=0 \
       UBSAN_OPTIONS=print_stacktrace=1 LSAN_OPTIONS=suppressions=$(CURDIR)/tools/sanitizers/lsan.supp:print_suppressions=0
# Without those that compile every family for TPU: the compiler is not instrumented and takes its time.
SANITIZE_CTEST ?= -E CompileEveryFamily
sanitize-address: test-setup ## with the address and undefined-behaviour sanitizers, in build-asan
	$(CONFIGURE) -B build-asan -DTTPU_SANITIZE=address,undefined >/dev/null
	$(ASAN) cmake --build build-asan -j $(JOBS)
	cd build-asan && $(ASAN) $(CTEST) $(SANITIZE_CTEST)

# The layers whose tests start threads; real weights run the same code for much longer.
THREADED ?= base pjrt parallel kernels engine server
THREADED_CTEST ?= -E RealWeights
TSAN = TSAN_OPTIONS=ignore_noninstrumented_modules=1:halt_on_error=1:suppressions=$(CURDIR)/tools/sanitizers/tsan.supp
sanitize-thread: test-setup ## with the thread sanitizer, in build-tsan
	$(CONFIGURE) -B build-tsan -DTTPU_SANITIZE=thread >/dev/null
	$(TSAN) cmake --build build-tsan -j $(JOBS) --target $(THREADED:%=ttpu_%_test)
	cd build-tsan && $(TSAN) $(CTEST) -R '^($(shell echo $(THREADED) | tr ' ' '|'))\.' $(THREADED_CTEST)

# Two layers are enough: the sanitizer looks at each access of the kernels. Memory grows with what it notes.
sanitize-thread-load: build test-setup ## the same of a server, for SOAK_SECONDS (60) under mixed load
	$(CONFIGURE) -B build-tsan -DTTPU_SANITIZE=thread >/dev/null
	$(TSAN) cmake --build build-tsan -j $(JOBS) --target ttpu
	$(TSAN) python3 benchmarks/soak.py tiny --ttpu build-tsan/ttpu --offline $(BUILD)/ttpu --seconds $(SOAK_SECONDS) --clients 12 \
	  --most-growth 100000

fuzz: setup ## each fuzz target for FUZZ_SECONDS (10)
	$(CONFIGURE) -B build-fuzz -DCMAKE_C_COMPILER=clang -DCMAKE_CXX_COMPILER=clang++ -DTTPU_BUILD_TESTS=OFF \
	  -DTTPU_BUILD_FUZZERS=ON -DTTPU_SANITIZE=address,undefined >/dev/null
	cmake --build build-fuzz -j $(JOBS) --target $(FUZZ_TARGETS)
	tools/fuzz.sh build-fuzz $(FUZZ_SECONDS)

bench: setup ## the micro benchmarks, in build-bench
	$(CONFIGURE) -B build-bench -DTTPU_BUILD_TESTS=OFF -DTTPU_BUILD_BENCHMARKS=ON -DCMAKE_BUILD_TYPE=Release >/dev/null
	cmake --build build-bench -j $(JOBS)

clean: ## remove the build folders (the cache of downloads stays)
	rm -rf build build-asan build-tsan build-fuzz build-bench
