#!/usr/bin/env bash
# Resolves requirements/{node,training,export,development}.in together for one Python and writes requirements/python3.XX.txt.
# Usage: tools/lock.sh /path/to/python3.12, and then tools/lock.sh /path/to/python3.10.
# A version in the existing lock file is kept unless a requirement forbids it. To upgrade a package, first remove its
# line from the lock file.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$1" -m venv "$scratch/venv"
lock=$("$1" -c 'import sys; print("python%d.%d.txt" % sys.version_info[:2])')
touch "$lock"
"$scratch/venv/bin/pip" install --quiet --dry-run --ignore-installed --report "$scratch/report.json" \
    -r node.in -r training.in -r export.in -r development.in -c "$lock"
"$scratch/venv/bin/python" - "$scratch/report.json" "$lock" <<'PYTHON'
import json
import sys

report = json.load(open(sys.argv[1]))
pins = sorted((f"{item['metadata']['name']}=={item['metadata']['version']}" for item in report['install']), key=str.lower)
with open(sys.argv[2], 'w') as lock:
    print('# Made by tools/lock.sh from node.in, training.in, export.in and development.in.', *pins, sep='\n', file=lock)
PYTHON
