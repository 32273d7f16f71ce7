#!/bin/sh
# Kills a pre-training at random moments with SIGKILL, runs it again until it is done, and checks that it ends with
# the very same checkpoint as a run that nobody disturbed, byte for byte.
#
#     sh examples/stop_and_resume.sh [FOLDER [KILLS]]
#
# FOLDER (default: a temporary one, removed when all is well) receives both runs, KILLS (default 5) is the number of
# kills. Exit code 0: the checkpoints are equal.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
kills=${2:-5}
if [ $# -ge 1 ]; then
    mkdir -p "$1"
    work=$(CDPATH='' cd -- "$1" && pwd)
    keep=yes
else
    work=$(mktemp -d)
    keep=no
fi
if [ -e "$work/undisturbed" ] || [ -e "$work/killed" ]; then
    echo "stop_and_resume.sh: $work holds an earlier attempt; give another folder" >&2
    exit 1
fi

child=
# Whoever stops this script stops the run it has started as well.
trap '[ -z "$child" ] || kill -9 "$child" 2>/dev/null || true' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

spark3d=$(sh "$root/examples/build.sh")

# Both runs are started with the same relative path, so that nothing they write can differ by its folder.
start() {
    cd "$work/$1"
    # exec: the kill below must reach the program itself, not a shell around it.
    exec "$spark3d" demo --out demo --quick >>"$work/$1.log" 2>&1
}

# A random number of seconds below $1, with two decimals; never zero.
random_below() {
    number=$(od -An -N4 -tu4 /dev/urandom | tr -d ' ')
    awk -v n="$number" -v limit="$1" 'BEGIN { printf "%.2f\n", 0.05 + n / 4294967296 * limit }'
}

show_log() {
    echo "stop_and_resume.sh: $2. The end of $work/$1.log:" >&2
    tail -n 20 "$work/$1.log" >&2
    exit 1
}

mkdir "$work/undisturbed" "$work/killed"
echo "running undisturbed ..." >&2
began=$(date +%s)
(start undisturbed) &
child=$!
wait "$child" || show_log undisturbed "the undisturbed run failed"
child=
seconds=$(($(date +%s) - began))
echo "... took $seconds s" >&2

done_kills=0
finished=no
while [ "$done_kills" -lt "$kills" ]; do
    # Short enough for several kills before the end: what one life achieves is kept by the next.
    delay=$(random_below "$(((seconds + 1) / 2))")
    (start killed) &
    child=$!
    sleep "$delay"
    kill -9 "$child" 2>/dev/null || true
    code=0
    # The shell's own notice of the kill is not wanted.
    wait "$child" 2>/dev/null || code=$?
    child=
    case $code in
        137)
            done_kills=$((done_kills + 1))
            echo "killed after $delay s ($done_kills of $kills)" >&2
            ;;
        0)
            finished=yes
            break
            ;;
        *) show_log killed "a resumed run failed with exit code $code" ;;
    esac
done
if [ "$done_kills" -eq 0 ]; then
    echo "stop_and_resume.sh: the run ended before any kill; nothing was tested" >&2
    exit 1
fi
if [ "$finished" = no ]; then
    echo "running to the end ..." >&2
    (start killed) &
    child=$!
    wait "$child" || show_log killed "the last resumed run failed"
    child=
fi

checkpoints=$(cd "$work/undisturbed" && find demo -name 'checkpoint_latest.safetensors' | sort)
if [ -z "$checkpoints" ]; then
    echo "stop_and_resume.sh: the undisturbed run left no checkpoint_latest.safetensors in $work/undisturbed" >&2
    exit 1
fi
for checkpoint in $checkpoints; do
    if ! cmp "$work/undisturbed/$checkpoint" "$work/killed/$checkpoint"; then
        echo "stop_and_resume.sh: $checkpoint differs after $done_kills kills; both runs are in $work" >&2
        exit 1
    fi
    echo "$checkpoint: equal after $done_kills kills"
done
[ "$keep" = yes ] || rm -r "$work"
