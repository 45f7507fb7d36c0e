#!/usr/bin/env bash
# Resolves requirements/requirements.in for one Python and writes requirements/python3.XX.txt.
# Usage: tools/lock.sh /path/to/python3.12, and again with a Python 3.10.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

"$1" -m venv "$scratch/venv"
"$scratch/venv/bin/pip" install --quiet --dry-run --ignore-installed --report "$scratch/report.json" -r requirements.in
"$scratch/venv/bin/python" - "$scratch/report.json" <<'PYTHON'
import json
import sys

report = json.load(open(sys.argv[1]))
pins = sorted((f"{item['metadata']['name']}=={item['metadata']['version']}" for item in report['install']), key=str.lower)
with open('python%d.%d.txt' % sys.version_info[:2], 'w') as lock:
    print('# Made by tools/lock.sh from requirements.in.', *pins, sep='\n', file=lock)
PYTHON
