#!/usr/bin/env bash
# Creates .venv-numpy2 for `make test-numpy2`. It contains the packages of .venv as hard links, but NumPy 2 instead of NumPy 1, and no
# packages that only training needs.
set -euo pipefail
cd "$(dirname "$0")/.."
venv=.venv-numpy2
python=$venv/bin/python
packages() { "$1" -c "import sysconfig; print(sysconfig.get_paths()['purelib'])"; }

rm -rf "$venv"
.venv/bin/python -m venv "$venv"
cp -aln "$(packages .venv/bin/python)/." "$(packages "$python")"
sed -E 's/[[:space:]]*#.*//; s/[<>=\[;].*//; /^$/d' requirements/training.in | xargs "$python" -m pip uninstall --quiet --yes
"$python" -m pip install --quiet --no-compile 'numpy>=2,<2.3' -r requirements/node.in -c <(grep -v '^numpy==' "requirements/$("$python" -c 'import sys; print("python%d.%d" % sys.version_info[:2])').txt")
"$python" -c 'import numpy; print(f"setup: NumPy {numpy.__version__} in .venv-numpy2")'
