# Each target sets up what it needs. `make` lists the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup demo train-demo test test-all test-long golden test-numpy2 coverage lint docs bench clean distclean

ROS_MODE := $(shell tools/ros_mode.sh)
# The name of a stamp file contains a checksum of the folder, the sourced ROS 2 and the build options. If one of them changes, the
# setup runs again.
stamp = .venv/$(1)-$(firstword $(shell echo '$(2)' | cksum)).done
VENV := $(call stamp,packages,$(CURDIR) $(ROS_MODE))
INSTALLED := $(call stamp,project,$(CURDIR) $(ROS_MODE) $(BEVDEPTH_CUDA) $(BEVDEPTH_CUDA_ARCHS) $(CUDA_HOME) $(shell command -v nvcc))
LINKED := .venv/ament.done
REFERENCE ?= ../shared/reference
# Each test process uses one thread, so that the nodes under test have enough CPU time.
# Three processes keep two cores busy, because tests of nodes mostly wait. The test files start in the order of testpaths or
# LONG_TESTS, in which slow folders come first.
PROCESSES = 3
golden test-long: PROCESSES = 2
PYTEST = OMP_NUM_THREADS=1 python -m pytest -n $(PROCESSES) --dist loadfile --no-loadscope-reorder
LONG_TESTS := tests/faults tests/resume tests/soak tests/end_to_end tests/packaging tests/fuzz
NODE_TESTS := tests/core tests/ros/rig tests/ros/detections tests/ros/detector --ignore=tests/core/nuscenes --ignore=tests/core/synthetic

help: ## list the commands
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(LINKED) ## create .venv with pinned versions; build the CUDA module if nvcc is found

demo: $(LINKED) ## render a synthetic six-camera drive, run the node on it, write out/demo.png
	@source env.sh
	python -m bevdepth_ros.demo $(ARGS)

train-demo: $(LINKED) ## train a small network on the CPU: write data, kill, resume, evaluate; out/train_demo/loss.png
	@source env.sh
	python training/demo.py $(ARGS)

test: $(LINKED) ## run the tests of the packages and programs; ARGS='-k NAME' selects tests
	@source env.sh
	$(PYTEST) $(ARGS)

test-all: test golden test-long ## run test, golden and test-long, that is, all tests except test-numpy2 and tests/gpu

test-long: $(LINKED) ## run the longer tests: whole programs, packaging, resumed training, fuzzing, faults, soak
	@source env.sh
	$(PYTEST) $(LONG_TESTS) $(ARGS)

golden: $(LINKED) ## compare with results of the official code in the folder REFERENCE
	@source env.sh
	BEVDEPTH_REFERENCE='$(REFERENCE)' $(PYTEST) tests/golden $(ARGS)

test-numpy2: $(LINKED) ## run core and node without the training packages, on NumPy 2
	@tools/make_numpy2_venv.sh
	source env.sh
	$(PYTEST:python%=.venv-numpy2/bin/python%) $(NODE_TESTS) $(ARGS)

coverage: $(LINKED) ## run the tests of `make test` and print line and branch coverage
	@source env.sh
	$(PYTEST) --cov --cov-report=term $(ARGS)

lint: $(LINKED) ## check style, types, package.xml, YAML, shell, workflow and Docker files
	@source env.sh
	ruff check .
	ruff format --check .
	mypy
	python tools/check_files.py
	actionlint
	git ls-files -- '*Dockerfile' | xargs --no-run-if-empty hadolint

docs: $(LINKED) ## build the documentation in out/docs; warnings are errors
	@source env.sh
	mkdocs build --strict --site-dir out/docs

bench: $(LINKED) ## run the benchmarks in tests/benchmarks
	@source env.sh
	for file in tests/benchmarks/bench_*.py; do python -m tests.benchmarks.$$(basename $$file .py) $(ARGS); done

clean: ## remove build files and caches, keep .venv and out
	rm -rf build install log out/docs *.egg-info .mypy_cache .coverage* tools/pip_ros2/build tools/pip_ros2/*.egg-info .pytest_cache .ruff_cache .hypothesis .venv/project-*.done
	rm -f bevdepth_core/ops/_kernels*.so

distclean: clean ## remove .venv, too; keep out
	rm -rf .venv .venv-numpy2

$(VENV): requirements/python3.10.txt requirements/python3.12.txt requirements/pip_ros.txt
	@PYTHON='$(PYTHON)' tools/make_venv.sh $(ROS_MODE)
	touch $@

$(INSTALLED): $(VENV) setup.py setup.cfg $(wildcard csrc/* csrc/*/*) tools/pip_ros2/pyproject.toml $(wildcard tools/pip_ros2/*.py)
	@rm -f .venv/project-*.done
	tools/install_project.sh
	touch $@

$(LINKED): $(INSTALLED) package.xml $(shell find launch config -type d -not -name __pycache__)
	@tools/link_ament_prefix.sh
	touch $@
