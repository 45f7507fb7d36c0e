# Sets up the environment of the project in a bash or zsh shell: . ./env.sh   (fish: source env.fish)
#
# Puts .venv on PATH, and this tree in front of AMENT_PREFIX_PATH so that ros2 pkg, run and launch find bevdepth_ros.
# If no ROS 2 was sourced before, env.sh also sets up the pip-only ROS 2. This is Jazzy, or Humble if BEVDEPTH_ROS_PREFIX=humble.
# You can source env.sh from any folder, and more than once. Source the local_setup.bash of a colcon workspace after env.sh.
# The first lines use only POSIX syntax, because every shell parses them. fish stops at the first `if` line and
# prints that line, whose comment names env.fish.

if [ -n "${BASH_VERSION:-}" ]; then # in fish: source env.fish
    _bevdepth_file=${BASH_SOURCE[0]}
elif [ -n "${ZSH_VERSION:-}" ]; then
    eval '_bevdepth_file=${(%):-%x}'
else
    echo "env.sh: this shell is neither bash nor zsh: start bash and run '. ./env.sh' there (in fish: source env.fish)" >&2
    return 1 2>/dev/null || exit 1
fi
_bevdepth_root=$(cd "$(dirname "$_bevdepth_file")" && pwd)

# _bevdepth_lead VARIABLE PATHS: puts PATHS first in a list such as PATH, and removes the entries of an earlier call.
_bevdepth_lead() {
    local entry rest kept=''
    eval "rest=\${$1:-}:"
    while [ -n "$rest" ]; do
        entry=${rest%%:*}
        rest=${rest#*:}
        case $entry in
            '' | "$_bevdepth_root"/.venv/* | */.venv/ament | */isaacsim.ros2.core/*) ;;
            *) kept=$kept:$entry ;;
        esac
    done
    export "$1=$2$kept"
}

_bevdepth_incomplete() {
    echo "env.sh: the set-up is not complete: run 'make setup' in $_bevdepth_root" >&2
}

_bevdepth_pip_ros() {
    local distro=${BEVDEPTH_ROS_PREFIX:-jazzy} prefix
    case $distro in
        jazzy | humble) ;;
        *)
            echo "env.sh: BEVDEPTH_ROS_PREFIX must be jazzy or humble, got '$distro'" >&2
            return 1
            ;;
    esac
    prefix=$(find "$_bevdepth_root"/.venv/lib/python3.*/site-packages/isaacsim/exts/isaacsim.ros2.core -maxdepth 1 -name "$distro" 2>/dev/null)
    if [ ! -d "$prefix" ]; then
        _bevdepth_incomplete
        return 1
    fi
    export ROS_DISTRO=$distro ROS_VERSION=2 ROS_PYTHON_VERSION=3
    _bevdepth_lead AMENT_PREFIX_PATH "$_bevdepth_root/.venv/ament:$prefix"
    _bevdepth_lead PYTHONPATH "$prefix/rclpy"
    _bevdepth_lead LD_LIBRARY_PATH "$prefix/lib"
}

_bevdepth_env() {
    local mode made_for
    mode=$("$_bevdepth_root/tools/ros_mode.sh")
    made_for=$(cat "$_bevdepth_root/.venv/made_for" 2>/dev/null)
    if [ -z "$made_for" ]; then
        _bevdepth_incomplete
        return 1
    fi
    if [ "$made_for" != "$mode $_bevdepth_root" ]; then
        echo "env.sh: .venv is made for '$made_for', this shell needs '$mode $_bevdepth_root': run 'make setup' in this shell" >&2
        return 1
    fi
    if [ ! -e "$_bevdepth_root/.venv/ament.done" ]; then
        _bevdepth_incomplete
        return 1
    fi
    export VIRTUAL_ENV=$_bevdepth_root/.venv
    _bevdepth_lead PATH "$VIRTUAL_ENV/bin"
    if [ "$mode" = pip ]; then
        _bevdepth_pip_ros
    else
        _bevdepth_lead AMENT_PREFIX_PATH "$_bevdepth_root/.venv/ament"
    fi
}

_bevdepth_env
