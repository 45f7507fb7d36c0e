#!/usr/bin/env bash
# Measures step times and loader throughput, and compares training losses on two GPUs with losses on one GPU. Generates two synthetic
# datasets in WORK: a small one before the measurements, and in the background, during the first measurements, a dataset as large as
# the training data of tools/train_small.sh.
# Run from the repository root on a machine with two NVIDIA GPUs: tests/gpu/measure_training.sh WORK
set -uo pipefail

work=$1
mkdir -p "$work"
some=$work/some data=$work/data
scenes=${SCENES:-400} duration=${SECONDS_PER_SCENE:-10}
synthetic=(python3 -m bevdepth_core.synthetic)
common=(--duration "$duration" --image-size 800x450 --no-sweeps)

timed() {
    local start=$SECONDS
    echo "== $*"
    timeout "${LIMIT:-100}" "$@" 2>"$work/errors" | grep -v '^$'
    local status=${PIPESTATUS[0]}
    [[ $status == 0 ]] || tail -n 25 "$work/errors"
    echo "== status $status, $((SECONDS - start)) s"
}

df -h /dev/shm | tail -n 1
[[ -d $some ]] || timed "${synthetic[@]}" "$some" --train-scenes "${SOME_SCENES:-32}" --val-scenes 0 "${common[@]}"
(
    nice -n 19 "${synthetic[@]}" "$data" --train-scenes "$scenes" --val-scenes $((scenes / 10)) "${common[@]}" >"$work/data.log" 2>&1
    echo "== data generated after $SECONDS s" >>"$work/data.log"
) &
generator=$!
bench=(python3 -m tests.benchmarks.bench_training --source-width 800)
timed "${bench[@]}" --preset small --batch-size 32 --steps 60 --workers 12
timed "${bench[@]}" --preset r50_256x704_2key --steps 60
timed "${bench[@]}" --preset r50_256x704_2key --steps 60 --devices 2
timed "${bench[@]}" --preset r50_256x704_2key --steps 300 --root "$some" --workers 14
timed python3 -m tests.gpu.ddp_equality "$some" "$work/losses.json" --devices 1
timed python3 -m tests.gpu.ddp_equality "$some" "$work/losses.json" --devices 2
wait "$generator"
tail -n 2 "$work/data.log"
timed "${bench[@]}" --preset small --batch-size 32 --steps "${SMALL_STEPS:-60}" --devices 2 --root "$data" --workers 15
du -sh "$data"
