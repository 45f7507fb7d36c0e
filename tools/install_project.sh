#!/usr/bin/env bash
# Builds the CUDA module if nvcc is found, and installs the project's packages and commands in .venv as links to this tree.
set -euo pipefail
trap 'echo "setup: interrupted: run make setup again" >&2; exit 130' INT
cd "$(dirname "$0")/.."
python=.venv/bin/python

echo 'setup 2/3: CUDA module'
rm -f bevdepth_core/ops/_kernels*.so
$python setup.py -q build_ext --inplace
if compgen -G 'bevdepth_core/ops/_kernels*.so' >/dev/null; then
    echo 'setup:     built'
else
    echo 'setup:     not built (BEVDEPTH_CUDA=0, or no working nvcc); the torch reference is used instead'
fi
echo 'setup 3/3: packages and commands of this project'
install=("$python" -m pip install -q --no-deps --no-build-isolation --no-compile)
BEVDEPTH_CUDA=0 "${install[@]}" -e .
[[ $(<.venv/made_for) != pip\ * ]] || "${install[@]}" tools/pip_ros2
