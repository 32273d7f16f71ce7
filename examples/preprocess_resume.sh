#!/bin/sh
# Preprocesses the same scans three times: at one go; killed at random moments with SIGKILL and given again until it is done; and
# in two parts side by side, as two machines would. Checks that the three stores are equal, byte for byte.
#
#     sh examples/preprocess_resume.sh INPUT...
#
# INPUT is what `spark3d preprocess -i` takes. KILLS (default 5) is the number of kills, OPTIONS (default none) holds further
# options such as --spacing 2. Exit code 0: the stores are equal.

set -eu
if [ $# -eq 0 ]; then
    echo "usage: sh examples/preprocess_resume.sh INPUT..." >&2
    exit 2
fi
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
kills=${KILLS:-5}
work=$(mktemp -d)
child=
# Whoever stops this script stops the run it has started as well.
trap '[ -z "$child" ] || kill -9 "$child" 2>/dev/null || true; rm -rf "$work"' EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

spark3d=$(sh "$root/examples/build.sh")
inputs=
for input in "$@"; do
    case $input in *\'*) echo "preprocess_resume.sh: no quotes in names, please: $input" >&2; exit 2 ;; esac
    inputs="$inputs -i '$input'"
done
# exec: a kill must reach the program itself, not a shell around it.
start() {
    eval "exec \"\$spark3d\" preprocess $inputs -o \"\$work/$1\" --quiet ${OPTIONS:-} ${2:-}"
}
now() { date +%s%N | cut -c1-13; }

begin=$(now)
(start one)
took=$(($(now) - begin))

done_kills=0
while [ "$done_kills" -lt "$kills" ]; do
    (start killed) >/dev/null &
    child=$!
    # A random moment, such that all the kills together come before the end of a run more often than not.
    random=$(od -An -N2 -tu2 /dev/urandom | tr -d ' ')
    wait_ms=$((took * (20 + random % 120) / 100 / kills))
    sleep "$(awk "BEGIN { print $wait_ms / 1000 }")"
    kill -9 "$child" 2>/dev/null && echo "killed after $wait_ms ms of $took" || echo "done before it was killed"
    wait "$child" 2>/dev/null || true
    child=
    done_kills=$((done_kills + 1))
done
(start killed)

(start parts '--part 0/2') &
child=$!
(start parts '--part 1/2')
wait "$child"
child=

for store in killed parts; do
    diff -r --exclude='.lock*' "$work/one" "$work/$store" || {
        echo "preprocess_resume.sh: the store $store differs from that of one run" >&2
        exit 1
    }
done
echo "equal: one run, one that was killed $kills times, and two parts; $(find "$work/one" -type f | wc -l) files"
