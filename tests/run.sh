#!/bin/sh
# All tests, from a fresh clone and from any folder. Arguments go to `cargo test`:
#
#     sh tests/run.sh
#     sh tests/run.sh --test parity -- --nocapture

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

sh "$root/examples/vulkan.sh"
command -v cargo >/dev/null 2>&1 || {
    echo "run.sh: cargo is not installed; see https://rustup.rs" >&2
    exit 1
}
cd "$root"
exec cargo test --release "$@"
