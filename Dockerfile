# Image with the node on ROS 2 Jazzy. The project has not yet built an image from this file (see CONTRIBUTING.md).
#
#     docker build -t bevdepth .
#     docker run --rm --net host bevdepth ros2 launch bevdepth_ros detect.launch.py checkpoint:=small
#
# Add `--gpus all` for a GPU. The base image has no nvcc, so the CUDA kernels are not built, and the network runs on the GPU step by
# step, without CUDA graphs. To build the kernels, use a base image with ROS 2 and a CUDA toolkit: --build-arg BASE=IMAGE.
ARG BASE=ros:jazzy-ros-base

# This stage contains everything that apt and rosdep install. The development container is built from it.
FROM ${BASE} AS dependencies
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /workspace/src/bevdepth_ros
COPY package.xml ./
# rosdep installs the versions of the distribution, so no versions are pinned (DL3008). RViz runs on the host, not in the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-venv \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths . --ignore-src -y --skip-keys rviz2 \
    && rm -rf /var/lib/apt/lists/*

# This stage adds the pinned pip packages (in .venv, which can also import the packages of ROS) and the colcon build.
FROM dependencies AS node
COPY . ./
# hadolint ignore=SC1091
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && make setup \
    && source env.sh \
    && colcon build
ENTRYPOINT ["/bin/bash", "-c", "source /opt/ros/$ROS_DISTRO/setup.bash && source env.sh && source install/local_setup.bash && exec \"$@\"", "--"]
# By default, `docker stop` sends SIGTERM, which ros2 launch ignores as process 1.
STOPSIGNAL SIGINT
CMD ["ros2", "launch", "bevdepth_ros", "detect.launch.py"]
