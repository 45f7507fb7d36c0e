#!/usr/bin/env bash
# Builds the CUDA module if nvcc is found, and installs the project's packages and commands in .venv as links to this tree.
set -euo pipefail
cd "$(dirname "$0")/.."
python=.venv/bin/python

rm -f bevdepth_core/ops/_kernels*.so
$python setup.py -q build_ext --inplace
if compgen -G 'bevdepth_core/ops/_kernels*.so' >/dev/null; then
    echo 'setup: CUDA module built'
else
    echo 'setup: no CUDA module (BEVDEPTH_CUDA=0, or no working nvcc); the torch reference is used instead'
fi
install=("$python" -m pip install -q --no-deps --no-build-isolation --no-compile)
BEVDEPTH_CUDA=0 "${install[@]}" -e .
[[ $(<.venv/made_for) != pip\ * ]] || "${install[@]}" tools/pip_ros2
