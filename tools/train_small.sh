#!/usr/bin/env bash
# Trains a small model in the same way as the bundled model: generates data, trains, exports and scores the model, and fits the
# covariance of its detections on scenes that neither training nor scoring uses.
#
#     tools/train_small.sh [STEPS [OPTIONS OF train.py]]        # default of STEPS: 4000; the bundled model was trained for 2200
#
# Run it from the repository root after `. ./env.sh`, on a machine with NVIDIA GPUs. It takes 15 minutes on two H200 and 32 cores.
# You can set DATA, CALIBRATION, OUT, SCENES, SECONDS_PER_SCENE and WORKERS (per GPU) in the environment.
set -euo pipefail

steps=${1:-4000}
data=${DATA:-data/synthetic} calibration=${CALIBRATION:-data/calibration} out=${OUT:-out/small}
scenes=${SCENES:-400} duration=${SECONDS_PER_SCENE:-10} workers=${WORKERS:-15}

python3 -c 'import sys, torch; torch.cuda.is_available() or sys.exit("train_small.sh: PyTorch finds no NVIDIA GPU")'
if [[ ! -d $data ]]; then
    python3 -m bevdepth_core.synthetic "$data" --train-scenes "$scenes" --val-scenes $((scenes / 10)) \
        --duration "$duration" --image-size 800x450 --no-sweeps
fi
python3 training/train.py --config config/training/small.yaml --data.root "$data" --data.workers "$workers" \
    --trainer.precision bf16-mixed --trainer.max_steps "$steps" --trainer.max_epochs 1000 --output "$out" --resume true "${@:2}"
weights=$(ls -t "$out"/weights/*.safetensors | head -n 1)
python3 -m bevdepth_core.checkpoint convert "$weights" "$out/small.safetensors" --half
python3 training/evaluate.py --checkpoint "$out/small.safetensors" --data.root "$data" --data.version v1.0-synthetic \
    --data.split synthetic_val --data.workers "$workers" --output "$out/evaluation"
if [[ ! -d $calibration ]]; then
    python3 -m bevdepth_core.synthetic "$calibration" --train-scenes 0 --val-scenes 14 --duration 20 --image-size 800x450 \
        --seed 8800 --no-sweeps
fi
python3 training/evaluate.py --checkpoint "$out/small.safetensors" --data.root "$calibration" --data.version v1.0-synthetic \
    --data.split synthetic_val --data.workers "$workers" --output "$out/calibration"
python3 training/fit_uncertainty.py "$out/small.safetensors" "$out/calibration/results.json" --root "$calibration" \
    --version v1.0-synthetic --split synthetic_val
