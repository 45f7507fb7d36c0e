#!/usr/bin/env bash
# Measures how much adaptation to the rig of another vehicle improves the scores on held-out synthetic scenes of this rig.
#
#     tools/adapt_rig.sh RIG [--quick]      RIG is b, c, d or the path of a rig file
#
# Run it from the repository root after `. ./env.sh`. It generates scenes of the rig and adapts the bundled weights in two steps: first
# the depth, without the boxes of the scenes, and then all weights, with the boxes. It scores the unchanged weights and the weights
# after each step. A step whose result already exists is not run again.
# --quick takes minutes on a CPU and only shows that every step works; its scores mean nothing.
# You can set OUT, INIT, SCENES, VAL_SCENES, SECONDS_PER_SCENE, EPOCHS, IMAGE_SIZE and WORKERS in the environment.
set -euo pipefail

usage() {
    echo "adapt_rig: $1" >&2
    echo 'usage: tools/adapt_rig.sh RIG [--quick]      RIG is b, c, d or the path of a rig file' >&2
    exit 2
}

[[ -n ${1:-} ]] || usage 'the rig is missing'
rig=$1
[[ -f $rig ]] || rig=config/rigs/$rig.yaml
[[ -f $rig ]] || usage "there is no rig $1"
[[ -z ${2:-} || $2 == --quick ]] || usage "unknown option $2"
out=${OUT:-out/adapt_rig/$(basename "$rig" .yaml)} init=${INIT:-small}
if [[ ${2:-} == --quick ]]; then
    scenes=1 val=1 duration=1.5 size=320x180 workers=0 batch=2 EPOCHS=${EPOCHS:-1}
else
    scenes=20 val=10 duration=10 size=800x450 workers=4 batch=8
fi
scenes=${SCENES:-$scenes} val=${VAL_SCENES:-$val} duration=${SECONDS_PER_SCENE:-$duration}
declare -A epochs=([adapt_depth]=${EPOCHS:-16} [fine_tune]=${EPOCHS:-24}) # the defaults are the values of the presets
size=${IMAGE_SIZE:-$size} workers=${WORKERS:-$workers}
mkdir -p "$out"
dataset=(--data.root "$out/data" --data.version v1.0-synthetic --data.cache_dir "$out/cache" --data.workers "$workers")

run() { # NAME COMMAND...: runs a step, and appends its time and its peak memory to steps.md
    python3 - "$out/steps.md" "$@" <<'PYTHON'
import resource, subprocess, sys, time
steps, name, *command = sys.argv[1:]
print(f'{name}: {" ".join(command)}', flush=True)
start = time.monotonic()
code = subprocess.call(command)
memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20
with open(steps, 'a') as file:
    file.write(f'| {name} | {time.monotonic() - start:.0f} s | {memory:.1f} GiB |\n')
sys.exit(code)
PYTHON
}

score() { # NAME CHECKPOINT
    [[ -f $out/$1/metrics_summary.json ]] || run "score $1" python3 training/evaluate.py --checkpoint "$2" "${dataset[@]}" \
        --data.split synthetic_val --output "$out/$1"
}

train() { # PRESET CHECKPOINT
    [[ -f $(last "$1") ]] || run "$1" python3 training/train.py --config "config/training/$1.yaml" --model.init "$2" "${dataset[@]}" \
        --data.split synthetic_train --data.batch_size "$batch" --trainer.max_epochs "${epochs[$1]}" --output "$out/$1" --resume true
}

last() { # PRESET: prints the path of the weights after the last epoch of this preset
    printf '%s/%s/weights/epoch_%03d.safetensors' "$out" "$1" "${epochs[$1]}"
}

[[ -d $out/data ]] || run data python3 -m bevdepth_core.synthetic "$out/data" --rig "$rig" --train-scenes "$scenes" \
    --val-scenes "$val" --duration "$duration" --image-size "$size" --no-sweeps
score unchanged "$init"
train adapt_depth "$init"
score depth_adapted "$(last adapt_depth)"
train fine_tune "$(last adapt_depth)"
score fine_tuned "$(last fine_tune)"

python3 - "$out" <<'PYTHON' | tee "$out/table.md"
import json, pathlib, sys
print('| weights | mAP | NDS |\n| --- | --- | --- |')
for name in ('unchanged', 'depth_adapted', 'fine_tuned'):
    scores = json.loads((pathlib.Path(sys.argv[1]) / name / 'metrics_summary.json').read_text())
    print(f'| {name} | {scores["mean_ap"]:.3f} | {scores["nd_score"]:.3f} |')
PYTHON
cat "$out/steps.md"
