#!/bin/sh
# The program beside PyTorch on the CPU: the same work on both sides, one after the other in turns, and a table of the ratios.
#
#     sh examples/bench_peers.sh PYTHON PEER_STEP.py [OUT_DIR]      OUT_DIR for the raw numbers, ./bench_peers without it
#
# PYTHON has torch and dynamic-network-architectures. PEER_STEP.py times a step of PyTorch and prints a JSON line (options
# --arch --task --mode --size --batch --mask-block --mask-ratio --threads --iters --warmup). The environment:
#
#     SPARK3D         the program, instead of one that is built here
#     SPARK3D_RUN     what to run it with, such as "sh mesa.sh run"
#     THREADS=2       of either side
#     ROUNDS=3        of which the medians are shown
#     PARTS           some of: convolutions seg64 mae64 seg96 mae96 infer96 encoder
#
# Exit code 1 if a part failed; the others are measured and shown all the same.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
if [ $# -lt 2 ] || [ $# -gt 3 ]; then
    echo "usage: sh bench_peers.sh PYTHON PEER_STEP.py [OUT_DIR]" >&2
    exit 2
fi
python=$1
peer_step=$2
out=${3:-bench_peers}
threads=${THREADS:-2}
rounds=${ROUNDS:-3}
parts=${PARTS:-convolutions seg64 mae64 seg96 mae96 infer96 encoder}
[ -r "$peer_step" ] || {
    echo "bench_peers.sh: cannot read $peer_step" >&2
    exit 2
}
for part in $parts; do
    case $part in
        convolutions | seg64 | mae64 | seg96 | mae96 | infer96 | encoder) ;;
        *)
            echo "bench_peers.sh: there is no part $part" >&2
            exit 2
            ;;
    esac
done
if [ -e "$out/peer.jsonl" ]; then
    echo "bench_peers.sh: $out holds earlier results; remove it or name another folder" >&2
    exit 2
fi
"$python" -c 'import torch, dynamic_network_architectures' || {
    echo "bench_peers.sh: $python needs torch and dynamic-network-architectures" >&2
    exit 2
}
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
        echo "bench_peers.sh: $name failed" >&2
        failed="$failed
  $name"
    fi
    rm -f "$out/part"
}

# Options of the peer follow.
peer() {
    try "round $round, $part, PyTorch" "$out/peer.jsonl" "$python" "$@" --threads "$threads"
}

# Options of the bench follow.
ours() {
    # SPARK3D_RUN is a command and its arguments.
    # shellcheck disable=SC2086
    try "round $round, $part, spark3d" "$out/ours/$part-$round.json" env LP_NUM_THREADS="$threads" \
        ${SPARK3D_RUN:-} "$spark3d" bench --device cpu --threads "$threads" --quiet --json "$@"
}

# A step of ResEnc-L on both sides: EDGE TASK MODE.
step() {
    peer "$peer_step" --arch L --size "$1" --batch 1 --task "$2" --mode "$3" --mask-block 16 --mask-ratio 0.75 \
        --iters 2 --warmup 1
    ours --only step --preset s3d-b --task "$2" --mode "$3" --steps 2 --set "train.patch=[$1,$1,$1]" \
        --set train.batch=1 --set mae.block=16 --set 'mae.mask_ratio=[0.75,0.75]'
}

round=1
while [ "$round" -le "$rounds" ]; do
    for part in $parts; do
        case $part in
            convolutions)
                peer "$root/examples/peer_conv.py" --runs 3
                ours --only convolutions --runs 3
                ;;
            seg64) step 64 seg train ;;
            mae64) step 64 mae train ;;
            seg96) step 96 seg train ;;
            mae96) step 96 mae train ;;
            infer96) step 96 seg infer ;;
            # Nothing of PyTorch has this: it computes hidden voxels too.
            encoder) ours --only encoder --preset tiny --runs 3 --set 'train.patch=[64,64,64]' ;;
        esac
    done
    round=$((round + 1))
done

"$spark3d" bench --baseline "$out/peer.jsonl" --results "$out"/ours/*.json --json >"$out/summary.json"
"$spark3d" bench --baseline "$out/peer.jsonl" --results "$out"/ours/*.json | tee "$out/summary.txt"
[ -z "$failed" ] || {
    echo "bench_peers.sh: these failed:$failed" >&2
    exit 1
}
