#!/bin/sh
# From unlabelled scans to a scored segmentation, with the scans that come with the source, in about ten minutes on two CPU
# cores: pre-train a small masked autoencoder, fine-tune its encoder on a labelled data set, predict scans that training never
# saw, score them.
#
#     sh examples/segment.sh [FOLDER]        FOLDER for the results, ./segment without it
#
# The same command again goes on where it stopped.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
out=${1:-segment}

spark3d=$(sh "$root/examples/build.sh")
data=$root/assets/hippocampus
mkdir -p "$out"

echo "== 1. Prepare the unlabelled scans and pre-train on them"
"$spark3d" preprocess -i "$root/assets/demo" -o "$out/store" --spacing 2 --min-file-bytes 100000
"$spark3d" pretrain "$out/store" -o "$out/pretrained" --preset tiny --steps 100 --set 'train.patch=[32,32,32]'

echo "== 2. Fine-tune the encoder with a new decoder: fold 0 of sixteen hippocampi, 1 mm"
"$spark3d" finetune "$data" -o "$out/model" --from "$out/pretrained" --preset tiny --length 300 --learning-rate 0.1 \
    --set train.momentum=0.9 --set 'train.patch=[32,48,32]' --set 'data.spacing=[1,1,1]'

echo "== 3. Segment four scans that nobody trained on"
"$spark3d" predict -m "$out/model" -i "$data/imagesTs" -o "$out/predicted"

echo "== 4. Score them"
"$spark3d" evaluate --ref "$data/labelsTs" --pred "$out/predicted" --dataset "$data/dataset.json" -o "$out/summary.json" \
    --overlays "$out/overlays" --images "$data/imagesTs"
echo "Pictures of the four are in $out/overlays, the fine-tuning's curve in $out/model/fold_0/progress.png."
