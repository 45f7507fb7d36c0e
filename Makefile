# One command each; every one sets up what it needs. `make` lists them.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DEFAULT_GOAL := help
.PHONY: help setup demo train-demo test lint docs bench clean distclean

ROS_MODE := $(shell tools/ros_mode.sh)
# Set-up runs again when the folder or the sourced ROS 2 is another one, or when the build is asked for otherwise.
stamp = .venv/$(1)-$(firstword $(shell echo '$(2)' | cksum)).done
VENV := $(call stamp,packages,$(CURDIR) $(ROS_MODE))
INSTALLED := $(call stamp,project,$(CURDIR) $(ROS_MODE) $(BEVDEPTH_CUDA) $(BEVDEPTH_CUDA_ARCHS) $(CUDA_HOME) $(shell command -v nvcc))
LINKED := .venv/ament.done

help: ## list the commands
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 12

setup: $(LINKED) ## make .venv with everything pinned; builds the CUDA module where nvcc is found

demo: $(LINKED) ## draw a six-camera drive, run the node on it, write out/demo.png
	@source env.sh
	python -m bevdepth_ros.demo $(ARGS)

train-demo: $(LINKED) ## train a toy on this CPU: data made, killed, resumed, scored; out/train_demo/loss.png
	@source env.sh
	python training/demo.py $(ARGS)

test: $(LINKED) ## run all tests; ARGS='-k name' picks some
	@source env.sh
	export OMP_NUM_THREADS=1  # two processes share the cores; threads that wait for each other would starve the nodes under test
	python -m pytest -n 2 --dist loadfile $(ARGS)

lint: $(LINKED) ## check style, types, package.xml, YAML, shell, workflow and Docker files
	@source env.sh
	ruff check .
	ruff format --check .
	mypy
	python tools/check_files.py
	actionlint
	git ls-files -- '*Dockerfile' | xargs --no-run-if-empty hadolint

docs: $(LINKED) ## build the documentation pages in out/docs, warnings are errors
	@source env.sh
	mkdocs build --strict --site-dir out/docs

bench: $(LINKED) ## run the timings in tests/benchmarks
	@source env.sh
	for file in tests/benchmarks/bench_*.py; do python -m tests.benchmarks.$$(basename $$file .py) $(ARGS); done

clean: ## remove what was built and written, keep .venv
	rm -rf build install log out *.egg-info .mypy_cache .coverage* tools/pip_ros2/build tools/pip_ros2/*.egg-info .pytest_cache .ruff_cache .hypothesis .venv/project-*.done
	rm -f bevdepth_core/ops/_kernels*.so

distclean: clean ## remove .venv, too
	rm -rf .venv

$(VENV): requirements/python3.10.txt requirements/python3.12.txt requirements/pip_ros.txt
	@PYTHON='$(PYTHON)' tools/make_venv.sh $(ROS_MODE)
	touch $@

$(INSTALLED): $(VENV) setup.py setup.cfg $(wildcard csrc/* csrc/*/*) tools/pip_ros2/pyproject.toml tools/pip_ros2/ros2_launch_command.py
	@rm -f .venv/project-*.done
	tools/install_project.sh
	touch $@

$(LINKED): $(INSTALLED) package.xml $(shell find launch config -type d -not -name __pycache__)
	@tools/link_ament_prefix.sh
	touch $@
