# The node on ROS 2 Jazzy. No image has been built by this project: see CONTRIBUTING.md.
#
#     docker build -t bevdepth .
#     docker run --rm --net host bevdepth ros2 launch bevdepth_ros detect.launch.py checkpoint:=small
#
# Add `--gpus all` for a GPU. The base image has no nvcc, so the CUDA kernels are not built and a GPU runs the network step by step.
# To build them, use a base image with ROS 2 and a CUDA toolkit: --build-arg BASE=IMAGE.
ARG BASE=ros:jazzy-ros-base

# Everything that apt and rosdep install. The development container is built from this stage.
FROM ${BASE} AS dependencies
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /workspace/src/bevdepth_ros
COPY package.xml ./
# rosdep resolves the versions of the distribution; RViz runs on the host, not in the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends build-essential python3-venv \
    && rosdep update --rosdistro "$ROS_DISTRO" \
    && rosdep install --from-paths . --ignore-src -y --skip-keys rviz2 \
    && rm -rf /var/lib/apt/lists/*

# The pinned pip packages (into .venv, beside the packages of ROS) and the colcon build.
FROM dependencies AS node
COPY . ./
# hadolint ignore=SC1091
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" \
    && make setup \
    && source env.sh \
    && colcon build
ENTRYPOINT ["/bin/bash", "-c", "source /opt/ros/$ROS_DISTRO/setup.bash && source env.sh && source install/local_setup.bash && exec \"$@\"", "--"]
# As process 1, ros2 launch would ignore the SIGTERM of `docker stop`.
STOPSIGNAL SIGINT
CMD ["ros2", "launch", "bevdepth_ros", "detect.launch.py"]
