#!/usr/bin/env bash
# Prints which ROS 2 this shell uses: the name of the sourced distribution (humble, jazzy, kilted), or "pip" for the pip-only ROS 2.
if [[ -n ${ROS_DISTRO:-} && ${AMENT_PREFIX_PATH:-} != *isaacsim.ros2.core* ]] && python3 -c 'import rclpy' 2>/dev/null; then
    echo "$ROS_DISTRO"
else
    echo pip
fi
