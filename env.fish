# Gives a fish shell the project's environment: source env.fish
#
# bash runs env.sh, and this file copies the variables that env.sh sets.

set -l root (dirname (status filename))
set -l lines (bash -c '. "$1/env.sh" && env' bash $root)
or return 1
for line in $lines
    set -l parts (string split -m 1 = -- $line)
    if contains -- $parts[1] PATH AMENT_PREFIX_PATH PYTHONPATH LD_LIBRARY_PATH VIRTUAL_ENV ROS_DISTRO ROS_VERSION ROS_PYTHON_VERSION
        if test $parts[1] = PATH
            set -gx PATH (string split : -- $parts[2])
        else
            set -gx $parts[1] $parts[2]
        end
    end
end
