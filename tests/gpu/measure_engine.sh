#!/usr/bin/env bash
# Builds the kernels, measures the time of voxel pooling, checks the detector on a GPU, and measures the time of the detector. If rclpy
# can be imported, the time of the node is measured, too. Each part has a time limit. After a failure the next part runs.
# Usage: measure_engine.sh [FOLDER]; logs, JSON files and plots are written to FOLDER, by default out/bench.
set -uo pipefail
cd "$(dirname "$0")/../.."
out=${1:-out/bench}
mkdir -p "$out"
started=$SECONDS

part() {
    local name=$1 limit=$2
    shift 2
    timeout "$limit" "$@" 2>&1 | tee "$out/$name.log" | grep -v '^$' | tail -n 60 | cut -c1-400
    echo "$name: exit status ${PIPESTATUS[0]}, $((SECONDS - started)) s since the start"
}

part build 120 env BEVDEPTH_CUDA=1 python3 setup.py -q build_ext --inplace
part voxel_pooling 180 python3 -m tests.benchmarks.bench_voxel_pooling --out "$out"
part check 150 python3 -m pytest tests/gpu/check_detector.py -q -s --tb=short
for row in '256x704_2key fp16' '256x704_2key bf16' '256x704_2key fp32' '256x704_2key_da fp16' '512x1408_2key fp16' '640x1600_2key fp16'; do
    read -r preset precision <<< "$row"
    part "engine_$preset-$precision" 90 python3 -m tests.benchmarks.bench_engine --preset "r50_$preset" --precision "$precision" --out "$out"
done
if python3 -c 'import rclpy' 2>/dev/null; then
    part node 150 python3 -m tests.benchmarks.bench_node --out "$out"
else
    echo 'node: not timed, because rclpy cannot be imported'
fi
