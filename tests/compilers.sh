#!/bin/sh
# Shows every compute shader to compilers that other people wrote, without a GPU: the SPIR-V validator, the writers of Metal's
# and DirectX's text, Mesa's compiler for AMD cards, and Chromium's WebGPU. Ends with exit code 1 where one of them refuses a
# shader, or a kernel that AMD cards run by default spills its registers.
#
#     sh tests/compilers.sh                       everything, in about six minutes; brings what is missing
#     sh tests/compilers.sh --quick               what runs by default, in about a minute; brings nothing that is installed as root
#     sh tests/compilers.sh --require radv        also fails where this check cannot run (validator, radv, radv-navi21, tint,
#                                                 tint-pipelines)
#     sh tests/compilers.sh --json FILE           results as JSON
#     sh tests/compilers.sh --radv-table FOLDER   what AMD's compiler counted, as CSV and JSON
#
# SPIRV_VAL names another validator. Debian and Ubuntu have all that is needed; elsewhere what cannot run says so and is left out.

set -eu
root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
cd "$root"
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spark3d
tint=$cache/tint
swiftshader=/usr/lib/chromium/vk_swiftshader_icd.json

say() {
    echo "compilers.sh: $*" >&2
}

has() {
    command -v "$1" >/dev/null 2>&1
}

# Whether the browser that is there is the one of the lock file.
have_tint() {
    [ -d "$tint/node_modules/webgpu" ] && cmp -s tests/compilers/tint/package-lock.json "$tint/package-lock.json"
}

# Beside the system, in the cache folder; the script of the package does nothing that Linux needs.
bring_tint() {
    mkdir -p "$tint"
    cp tests/compilers/tint/package.json tests/compilers/tint/package-lock.json "$tint/"
    (cd "$tint" && npm ci --ignore-scripts --no-audit --no-fund --omit=dev) >&2 || rm -rf "$tint/node_modules"
}

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; else sudo -n "$@"; fi
}

bring_swiftshader() {
    as_root apt-get update >&2 || say "apt-get update failed; trying with the lists that are there"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends chromium-common >&2
}

has cargo || {
    say "cargo is not installed; see https://rustup.rs"
    exit 1
}
is_quick=no
for argument in "$@"; do
    [ "$argument" != --quick ] || is_quick=yes
done
if has apt-get; then
    sh tests/compilers/radv.sh version >/dev/null || sh tests/compilers/radv.sh install || say "no RADV of Debian 13"
    [ "$is_quick" = yes ] || [ -r "$swiftshader" ] || bring_swiftshader || say "no SwiftShader"
fi
if has npm && ! have_tint; then
    bring_tint || say "no package webgpu"
fi

validator=${SPIRV_VAL:-${SPARK3D_RADV:-$cache/radv}/spirv-val}
[ -x "$validator" ] || validator=$(command -v spirv-val || true)
[ -z "$validator" ] || set -- "$@" --spirv-val "$validator"

if sh tests/compilers/radv.sh version >/dev/null; then
    set -- "$@" --radv "sh tests/compilers/radv.sh run"
else
    for file in /usr/share/vulkan/icd.d/radeon_icd*.json; do
        [ ! -r "$file" ] || set -- "$@" --radv "env VK_DRIVER_FILES=$file"
    done
fi

if has node && have_tint; then
    cp tests/compilers/tint/check.mjs "$tint/"
    set -- "$@" --tint "$tint"
    [ ! -r "$swiftshader" ] || set -- "$@" --tint-driver "$swiftshader"
fi

exec cargo run --quiet --release -p kernel-compilers -- "$@"
