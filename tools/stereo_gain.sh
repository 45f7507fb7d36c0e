#!/usr/bin/env bash
# Measures how much stereo improves the scores: trains the small network without and with stereo for the same number of steps, and
# scores both networks on held-out synthetic scenes.
#
#     tools/stereo_gain.sh [OPTIONS OF train.py]
#
# Run from the repository root after `. ./env.sh`, on a machine with one or two NVIDIA GPUs. Both networks use stride 16, which stereo
# needs, the same data and the same seed. They train at the same time; if there are two GPUs, each network uses its own GPU. Each seed in
# SEEDS generates a different set of held-out scenes.
# You can set DATA, OUT, STEPS, BATCH, SCENES, VAL_SCENES, SECONDS_PER_SCENE, SEEDS and WORKERS (per training) in the environment.
set -euo pipefail

data=${DATA:-data/stereo_gain} out=${OUT:-out/stereo_gain} steps=${STEPS:-4000} batch=${BATCH:-32}
scenes=${SCENES:-400} val=${VAL_SCENES:-10} duration=${SECONDS_PER_SCENE:-10} seeds=${SEEDS:-1 2 3} workers=${WORKERS:-7}
gpus=$(python3 -c 'import torch; print(torch.cuda.device_count())')
stereo='--model.network.stereo={"range_bounds": [2.0, 8.4, 16.4, 28.4, 58.0]}'

generate() { # FOLDER TRAINING_SCENES HELD_OUT_SCENES SEED
    [[ -d $1 ]] || python3 -m bevdepth_core.synthetic "$1" --train-scenes "$2" --val-scenes "$3" --seed "$4" \
        --duration "$duration" --image-size 640x360 --no-sweeps
}

gpu_of() { # NAME
    if [[ $1 == with_stereo ]]; then echo $((gpus > 1)); else echo 0; fi
}

train() { # NAME OPTION...
    CUDA_VISIBLE_DEVICES=$(gpu_of "$1") python3 training/train.py --config config/training/small.yaml --model.network.image_encoder.stride 16 \
        --data.root "$data/training" --data.cache_dir "$out/$1/cache" --data.workers "$workers" --data.batch_size "$batch" \
        --data.augmentation.image.scale '[0.8, 1.0]' --model.learning_rate_batch "$batch" --trainer.precision bf16-mixed \
        --trainer.devices 1 --trainer.max_steps "$steps" --trainer.max_epochs 1000 --output "$out/$1" --resume true \
        "${@:2}" >"$out/$1.log" 2>&1 || { tail -n 30 "$out/$1.log" && return 1; }
}

score() { # NAME SEED
    local weights
    weights=$(printf '%s\n' "$out/$1"/weights/epoch_*.safetensors | tail -n 1)
    CUDA_VISIBLE_DEVICES=$(gpu_of "$1") python3 training/evaluate.py --checkpoint "$weights" \
        --data.root "$data/held_out_$2" --data.version v1.0-synthetic --data.split synthetic_val --data.workers $((workers / 3 + 1)) --output "$out/$1/seed_$2" >"$out/$1_$2.log" 2>&1 ||
        { tail -n 30 "$out/$1_$2.log" && return 1; }
}

in_parallel() { # FUNCTION WORDS...: calls FUNCTION once per word at the same time; a word may contain several arguments
    local jobs=() job
    for words in "${@:2}"; do
        eval "$1 $words" &
        jobs+=($!)
    done
    for job in "${jobs[@]}"; do wait "$job"; done
}

mkdir -p "$out"
generate "$data/training" "$scenes" 0 0
for seed in $seeds; do generate "$data/held_out_$seed" 0 "$val" "$seed"; done
echo "data: $SECONDS s"
in_parallel train "without_stereo ${*@Q}" "with_stereo ${stereo@Q} ${*@Q}"
echo "training: $SECONDS s"
pairs=()
for seed in $seeds; do pairs+=("without_stereo $seed" "with_stereo $seed"); done
in_parallel score "${pairs[@]}"
echo "scores: $SECONDS s"
python3 - "$out" "$steps" $seeds <<'PYTHON' | tee "$out/table.md"
import json, sys
from pathlib import Path

out, steps, *seeds = sys.argv[1:]
print(f'After {steps} steps:\n\n| network | held-out scenes | mAP | NDS | mATE | mAVE |\n| --- | --- | --- | --- | --- | --- |')
for name in ('without_stereo', 'with_stereo'):
    rows = []
    for seed in seeds:
        summary = json.loads(Path(out, name, f'seed_{seed}', 'metrics_summary.json').read_text())
        errors = summary['tp_errors']
        rows.append((summary['mean_ap'], summary['nd_score'], errors['trans_err'], errors['vel_err']))
    rows.append([sum(column) / len(seeds) for column in zip(*rows)])
    for label, row in zip([*(f'seed {seed}' for seed in seeds), 'mean'], rows):
        print('|', ' | '.join((name.replace('_', ' '), label, *(f'{value:.4f}' for value in row))), '|')
PYTHON
