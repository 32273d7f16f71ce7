#!/bin/sh
# Makes sure that a Vulkan adapter can be had, if need be Mesa's lavapipe, which runs on the CPU.
# macOS (Metal) and Windows (DirectX 12) bring all that is needed. Exit code 1 if there is none to be had.
#
#     sh examples/vulkan.sh

set -u

# The folders in which the Vulkan loader looks for drivers.
driver_folders() {
    data_home=${XDG_DATA_HOME:-${HOME:-/root}/.local/share}
    printf '%s\n' "$data_home/vulkan/icd.d" /etc/vulkan/icd.d /usr/local/etc/vulkan/icd.d \
        /usr/local/share/vulkan/icd.d /usr/share/vulkan/icd.d /etc/xdg/vulkan/icd.d
}

# Whether there is something to drive for the driver that the file describes: the images of containers hold drivers
# for cards that are not there.
usable() {
    [ -r "$1" ] || return 1
    case ${1##*/} in
        *lvp* | *lavapipe* | *swiftshader*) return 0 ;;
        *nvidia*) set -- /dev/nvidiactl /dev/nvhost-ctrl ;;
        *dzn*) set -- /dev/dxg ;;
        *) set -- /dev/dri/renderD* ;;
    esac
    for node in "$@"; do
        [ ! -e "$node" ] || return 0
    done
    return 1
}

have_driver() {
    chosen=${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}
    if [ -n "$chosen" ]; then
        # Replaces the folders; whoever sets it knows the card.
        printf '%s\n' "$chosen" | tr ':' '\n' | {
            while IFS= read -r file; do
                [ ! -r "$file" ] || exit 0
            done
            exit 1
        }
    else
        driver_folders | {
            while IFS= read -r folder; do
                for file in "$folder"/*.json; do
                    if usable "$file"; then exit 0; fi
                done
            done
            exit 1
        }
    fi
}

have_loader() {
    for ldconfig in ldconfig /sbin/ldconfig /usr/sbin/ldconfig; do
        if "$ldconfig" -p 2>/dev/null | grep -q 'libvulkan\.so\.1'; then
            return 0
        fi
    done
    # Without ldconfig (musl), or beside the system's folders (modules of a cluster).
    printf '%s\n' "${LD_LIBRARY_PATH:-}" /usr/lib /usr/lib64 /lib /usr/local/lib /usr/lib/x86_64-linux-gnu \
        /usr/lib/aarch64-linux-gnu | tr ':' '\n' | {
        while IFS= read -r folder; do
            [ -n "$folder" ] && [ -e "$folder/libvulkan.so.1" ] && exit 0
        done
        exit 1
    }
}

have_vulkan() {
    have_loader && have_driver
}

fail() {
    echo "vulkan.sh: $*" >&2
    exit 1
}

case $(uname -s) in
    Darwin | MINGW* | MSYS* | CYGWIN* | Windows_NT) exit 0 ;;
esac
have_vulkan && exit 0

[ -z "${VK_DRIVER_FILES:-${VK_ICD_FILENAMES:-}}" ] ||
    fail "the Vulkan loader or the drivers that VK_DRIVER_FILES or VK_ICD_FILENAMES names are missing; unset the variable"
command -v apt-get >/dev/null 2>&1 ||
    fail "no Vulkan driver found. Install Mesa's Vulkan drivers with lavapipe and the Vulkan loader:
    Fedora, RHEL:  dnf install mesa-vulkan-drivers vulkan-loader
    Arch:          pacman -S vulkan-swrast vulkan-icd-loader
    Alpine:        apk add mesa-vulkan-swrast vulkan-loader"

if [ "$(id -u)" -eq 0 ]; then
    as_root=
elif command -v sudo >/dev/null 2>&1; then
    as_root=sudo
else
    fail "no Vulkan driver found, and installing one needs root: apt-get install mesa-vulkan-drivers libvulkan1"
fi

echo "vulkan.sh: no Vulkan adapter found; installing Mesa's drivers" >&2
# Other people's lists may be out of reach; whether the packages can be had is what counts.
$as_root apt-get update >&2 || echo "vulkan.sh: apt-get update failed; trying with the lists that are there" >&2
$as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends mesa-vulkan-drivers libvulkan1 >&2 ||
    fail "the packages mesa-vulkan-drivers and libvulkan1 could not be installed; see the messages of apt-get above"
have_vulkan || fail "still no Vulkan driver after installing mesa-vulkan-drivers and libvulkan1"
