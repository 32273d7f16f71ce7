#!/bin/sh
# All that a GPU is to be asked, in one go: whether every operator is right there, how fast operators, training and inference
# are, and how that compares with PyTorch.
#
#     sh examples/gpu_bench.sh PYTHON PEER_STEP.py [OUT_DIR]      OUT_DIR for everything, ./gpu_bench without it
#
# PYTHON and PEER_STEP.py as for bench_peers.sh, with CUDA. The environment:
#
#     SPARK3D         the program, instead of one that is built here
#     SPARK3D_RUN     what to run it with
#     SPARK3D_DEVICE  the adapter, as `spark3d doctor` lists it
#     STEPS=5         timed steps of a run
#     ROUNDS=1        of which the medians are shown
#     SIZE=160        edge of the patches, ARCH=L or tiny: small ones to try the script out
#     PEER_DEVICE=cuda
#
# A part that fails is named at the end, and the others go on. Exit code 1 if one failed.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: sh gpu_bench.sh PYTHON PEER_STEP.py [OUT_DIR]" >&2
    exit 2
fi
python=$1
peer_script=$2
out=${3:-gpu_bench}
steps=${STEPS:-5}
rounds=${ROUNDS:-1}
size=${SIZE:-160}
arch=${ARCH:-L}
cuda=${PEER_DEVICE:-cuda}
if [ -e "$out/peer.jsonl" ]; then
    echo "gpu_bench.sh: $out holds earlier results; remove it or name another folder" >&2
    exit 2
fi
spark3d=${SPARK3D:-$(sh "$root/examples/build.sh")}
mkdir -p "$out/ours"
: >"$out/peer.jsonl"
failed=

# Runs a part; what it prints is kept only when it succeeded.
#     try NAME FILE COMMAND ...
try() {
    name=$1
    file=$2
    shift 2
    echo "== $name" >&2
    if "$@" >"$out/part"; then
        cat "$out/part" >>"$file"
    else
        # What a check found wrong is worth reading.
        cat "$out/part" >&2
        echo "gpu_bench.sh: $name failed" >&2
        failed="$failed
  $name"
    fi
    rm -f "$out/part"
}

# NAME, then options of the peer.
peer() {
    what=$1
    shift
    try "round $round, PyTorch: $what" "$out/peer.jsonl" "$python" "$@" --device "$cuda"
}

program() {
    # SPARK3D_RUN is a command and its arguments.
    # shellcheck disable=SC2086
    ${SPARK3D_RUN:-} "$spark3d" "$@" --device "${SPARK3D_DEVICE:-auto}"
}

# FAMILY of kernels
doctor_with() {
    (export SPARK3D_KERNELS="$1" && program doctor)
}

# NAME, then options of the bench.
ours() {
    what=$1
    shift
    try "round $round, spark3d: $what" "$out/ours/$what-$round.json" program bench --json "$@"
}

# NAME PRECISION BATCH TASK MODE
ours_step() {
    name=$1
    precision=$2
    batch=$3
    task=$4
    mode=$5
    # A program without a choice of precision computes in f32.
    set --
    [ "$precision" = f32 ] || set -- --set "train.precision=\"$precision\""
    # The first round also finds the fastest kernels, for itself and for the next.
    [ "$round" != 1 ] || set -- "$@" --tune
    ours "$name" --only step --profile --preset s3d-b --task "$task" --mode "$mode" --steps "$steps" \
        --set "network=\"$arch\"" --set "train.patch=[$size,$size,$size]" --set "train.batch=$batch" \
        --set 'mae.mask_ratio=[0.75,0.75]' "$@"
}

# NAME BATCH TASK MODE
peer_step() {
    peer "$1" "$peer_script" --arch "$arch" --size "$size" --batch "$2" --task "$3" --mode "$4" --mask-block 32 \
        --mask-ratio 0.75 --amp --cudnn-benchmark --iters "$steps" --warmup 3
}

round=0
try "doctor: every operator against its reference" "$out/doctor.txt" program doctor
for family in direct staged gathered reduced subgroup matrix halo; do
    try "doctor: $family kernels wherever there are any" "$out/doctor-$family.txt" doctor_with "$family"
done

round=1
while [ "$round" -le "$rounds" ]; do
    peer "convolutions, f32" "$root/examples/peer_conv.py"
    peer "convolutions, f16" "$root/examples/peer_conv.py" --amp float16
    ours convolutions --only convolutions

    peer_step "S3D-B" 6 mae train
    ours_step s3d-b-f32 f32 6 mae train
    ours_step s3d-b-f16 f16 6 mae train

    peer_step "segmentation" 2 seg train
    ours_step segmentation-f32 f32 2 seg train
    ours_step segmentation-f16 f16 2 seg train

    peer_step "inference" 1 seg infer
    ours_step inference-f32 f32 1 seg infer
    ours_step inference-f16 f16 1 seg infer
    round=$((round + 1))
done

# Whatever there is of both sides.
if ls "$out"/ours/*.json >/dev/null 2>&1 && [ -s "$out/peer.jsonl" ]; then
    try "ratios to PyTorch" "$out/summary.txt" "$spark3d" bench --baseline "$out/peer.jsonl" --results "$out"/ours/*.json
    try "ratios to PyTorch, JSON" "$out/summary.json" \
        "$spark3d" bench --json --baseline "$out/peer.jsonl" --results "$out"/ours/*.json
    [ ! -s "$out/summary.txt" ] || cat "$out/summary.txt"
else
    failed="$failed
  ratios to PyTorch: one of the two sides has no result"
fi
[ -z "$failed" ] || {
    echo "gpu_bench.sh: these failed:$failed" >&2
    exit 1
}
echo "The reports and profiles are in $out/ours, the operators' errors in $out/doctor*.txt."
