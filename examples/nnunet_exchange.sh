#!/bin/sh
# Checks that nnU-Net and spark3d predict the same with the same model: converts it to the other's form, predicts scans
# with nnU-Net's own predictor (on the CPU) and with `spark3d predict`, and compares the label maps.
#
#     sh examples/nnunet_exchange.sh MODEL IMAGES [PYTHON]
#
# MODEL is a run folder of `spark3d finetune` or a model folder of nnU-Net v2, IMAGES a folder of CASE_0000.nii.gz, ...
# PYTHON is a Python with nnunetv2; without it, an environment is made in target/nnunet and nnunetv2 2.8.1 put into it (some GB).
# Exit code 0: every class of every case has a Dice of at least 0.995.

set -eu
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: sh examples/nnunet_exchange.sh MODEL IMAGES [PYTHON]" >&2
    exit 2
fi
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
model=$1
images=$2
python=${3:-}
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

if [ -z "$python" ]; then
    environment=$root/target/nnunet
    python=$environment/bin/python
    if ! "$python" -c 'import nnunetv2' 2>/dev/null; then
        echo "making a Python environment with nnunetv2 2.8.1 in $environment ..." >&2
        python3 -m venv "$environment"
        "$python" -m pip install --quiet nnunetv2==2.8.1
    fi
fi

spark3d=$(sh "$root/examples/build.sh")

# Each program reads the form that is its own.
"$spark3d" convert "$model" "$work/nnUNetTrainer__converted__model"
theirs=$work/nnUNetTrainer__converted__model
ours=$model
if [ -n "$(find "$theirs" -name 'checkpoint_*.safetensors')" ]; then
    theirs=$model
    ours=$work/nnUNetTrainer__converted__model
fi
checkpoint=final
[ -n "$(find "$theirs" -name checkpoint_final.pth)" ] || checkpoint=best

# nnU-Net complains about folders that predicting does not need.
export nnUNet_raw="$work" nnUNet_preprocessed="$work" nnUNet_results="$work"
"$python" "$root/examples/nnunet_exchange.py" predict "$theirs" "$images" "$work/nnunet" "checkpoint_$checkpoint.pth" \
    >"$work/log" 2>&1 || {
    tail -n 20 "$work/log" >&2
    exit 1
}
"$spark3d" predict --quiet -m "$ours" -i "$images" -o "$work/spark3d" --checkpoint "$checkpoint"
"$python" "$root/examples/nnunet_exchange.py" compare "$work/nnunet" "$work/spark3d"
