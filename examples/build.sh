#!/bin/sh
# Builds the program for the other scripts here, installs a software Vulkan driver where there is none, and prints where the
# program is.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)

sh "$root/examples/vulkan.sh" >&2
command -v cargo >/dev/null 2>&1 || {
    echo "build.sh: cargo is not installed; see https://rustup.rs" >&2
    exit 1
}
(cd "$root" && cargo build --release --bin spark3d) >&2
target=${CARGO_TARGET_DIR:-$root/target}
case $target in
    /*) ;;
    *) target=$root/$target ;;
esac
echo "$target/release/spark3d"
