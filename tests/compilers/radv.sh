#!/bin/sh
# Unpacks the Mesa of Debian 13 beside the system, whose compiler for AMD cards knows cooperative matrices and works without
# a card, and the SPIR-V validator of Debian 13, which knows them too. Debian or Ubuntu with apt-get; nothing of the system
# is changed.
#
#     sh tests/compilers/radv.sh install          download and unpack, about 60 MB (once)
#     sh tests/compilers/radv.sh run PROGRAM ...  run PROGRAM with it
#     sh tests/compilers/radv.sh version          what is unpacked; exit code 1 where nothing is
#
# It lies in SPARK3D_RADV, or in the user's cache folder.

set -eu
dir=${SPARK3D_RADV:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/spark3d/radv}
release=trixie

fail() {
    echo "radv.sh: $*" >&2
    exit 1
}

# The folder of libraries, whatever the processor.
libraries() {
    set -- "$dir"/root/usr/lib/*-linux-gnu*/libvulkan_radeon.so
    [ -e "$1" ] && dirname -- "$1"
}

install() {
    command -v apt-get >/dev/null 2>&1 || fail "needs apt-get"
    command -v dpkg >/dev/null 2>&1 || fail "needs dpkg"
    key=/usr/share/keyrings/debian-archive-keyring.gpg
    [ -r "$key" ] || fail "needs the package debian-archive-keyring"
    # The mirror that the system uses, where it is Debian's own.
    uri=$(sed -n 's/^URIs: *\([^ ]*debian\/\{0,1\}\) *$/\1/p; s/^deb \(\[[^]]*\] \)\{0,1\}\([^ ]*debian\/\{0,1\}\) .*/\2/p' \
        /etc/apt/sources.list /etc/apt/sources.list.d/*.sources /etc/apt/sources.list.d/*.list 2>/dev/null | head -n 1)
    uri=${uri:-http://deb.debian.org/debian}
    rm -rf "$dir.new"
    mkdir -p "$dir.new/lists/partial" "$dir.new/archives/partial"
    echo "deb [signed-by=$key] $uri $release main" >"$dir.new/sources.list"
    : >"$dir.new/status"
    set -- -o "Dir::Etc::SourceList=$dir.new/sources.list" -o Dir::Etc::SourceParts=/dev/null \
        -o "Dir::State::Lists=$dir.new/lists" -o "Dir::State::status=$dir.new/status" \
        -o "Dir::Cache::Archives=$dir.new/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o APT::Sandbox::User=root -o Debug::NoLocking=1
    apt-get "$@" update >&2
    # An empty list of installed packages, so that all libraries come with them.
    packages=$(apt-get "$@" -s install --no-install-recommends mesa-vulkan-drivers libvulkan1 spirv-tools |
        sed -n 's/^Inst \([^ ]*\) .*/\1/p' | sort -u)
    [ -n "$packages" ] || fail "the packages of $release could not be resolved"
    # shellcheck disable=SC2086 # one word a package
    (cd "$dir.new/archives" && apt-get "$@" download $packages >&2)
    for package in "$dir.new"/archives/*.deb; do
        dpkg -x "$package" "$dir.new/root"
    done
    set -- "$dir.new"/archives/mesa-vulkan-drivers_*.deb
    version=${1##*/mesa-vulkan-drivers_}
    echo "${version%_*}" >"$dir.new/version"
    rm -rf "$dir.new/archives" "$dir.new/lists" "$dir"
    mv "$dir.new" "$dir"
    lib=$(libraries) || fail "the packages hold no RADV"
    printf '{"file_format_version":"1.0.1","ICD":{"api_version":"1.3.0","library_path":"%s"}}\n' \
        "$lib/libvulkan_radeon.so" >"$dir/radv.json"
    printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' "$(loader)" "$lib" "$dir/root/usr/bin/spirv-val" \
        >"$dir/spirv-val"
    chmod +x "$dir/spirv-val"
}

# Their own dynamic loader: the libraries are newer than the system's.
loader() {
    for file in "$lib"/ld-linux-*.so.* "$dir"/root/usr/lib64/ld-linux-*.so.*; do
        [ -e "$file" ] && { echo "$file"; return; }
    done
    fail "the packages hold no dynamic loader"
}

case ${1:-} in
    install) install ;;
    version)
        [ -r "$dir/version" ] && cat "$dir/version"
        ;;
    run)
        shift
        lib=$(libraries) || fail "not unpacked; run: sh tests/compilers/radv.sh install"
        VK_DRIVER_FILES=$dir/radv.json
        export VK_DRIVER_FILES
        exec "$(loader)" --library-path "$lib" "$@"
        ;;
    *)
        sed -n '2,10p' "$0"
        exit 2
        ;;
esac
