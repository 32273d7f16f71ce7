#!/bin/sh
# Every kernel that any class of adapters may run, interpreted lane by lane: the long tests of tests/kernels.rs beside the short ones,
# and the tests of the interpreter itself. Takes about half an hour on two cores. Arguments go to the tests' program:
#
#     sh tests/kernels.sh
#     sh tests/kernels.sh seeded

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
cargo test --release -p shader-interpreter
exec cargo test --release --test kernels -- --include-ignored --nocapture "$@"
