#!/usr/bin/env bash
# Creates the ament prefix .venv/ament from links to this tree, so that ros2 pkg, run and launch find the package without a colcon build.
set -euo pipefail
cd "$(dirname "$0")/.."
name=bevdepth_ros
prefix=.venv/ament

rm -rf "$prefix"
mkdir -p "$prefix/share/ament_index/resource_index/packages" "$prefix/share/$name" "$prefix/lib/$name"
touch "$prefix/share/ament_index/resource_index/packages/$name"
cp -rs "$PWD/package.xml" "$PWD/launch" "$PWD/config" "$prefix/share/$name/"
.venv/bin/python -c "from importlib.metadata import distribution; print(*(e.name for e in distribution('$name').entry_points), sep='\n')" |
    while read -r script; do ln -s "$PWD/.venv/bin/$script" "$prefix/lib/$name/"; done
