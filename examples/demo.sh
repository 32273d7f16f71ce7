#!/bin/sh
# The main job end to end on the scans that come with the source, from a fresh clone and from any folder:
#
#     sh examples/demo.sh --quick --out /tmp/demo
#
# Arguments go to `spark3d demo`; relative paths among them are seen from where you are.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

sh "$root/examples/vulkan.sh"
command -v cargo >/dev/null 2>&1 || {
    echo "demo.sh: cargo is not installed; see https://rustup.rs" >&2
    exit 1
}
exec cargo run --release --manifest-path "$root/Cargo.toml" --bin spark3d -- demo "$@"
