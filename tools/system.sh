#!/usr/bin/env bash
# What the project needs from the system, on Debian, Ubuntu and Raspberry Pi OS. Used by the Makefile:
#
#   tools/system.sh venv FOLDER   makes a virtual environment with a Python that can build C
#   tools/system.sh test          makes sure of the programs that the tests start
#   tools/system.sh qemu          the compilers and QEMU that `make qemu` needs; part of test
#   tools/system.sh pico          the compilers that `make pico` needs
#
# What is missing is installed with apt, by root or with a sudo that does not ask; else the command
# to run is printed and this fails.
set -euo pipefail

readonly versions='Python 3.11, 3.12 or 3.13'

fail() {
    printf '%s\n' "$@" >&2
    exit 1
}

apt_install() { # PACKAGE...
    local as=()
    if ! command -v apt-get >/dev/null; then
        fail "Missing: $*" "These are Debian's names; install your system's counterparts, then run make again."
    fi
    if [ "$(id -u)" -ne 0 ]; then
        if ! sudo -n true 2>/dev/null; then
            fail "Missing: $*" 'Installing them takes an administrator. Run this, then make again:' \
                "    sudo apt-get install $*"
        fi
        as=(sudo -n)
    fi
    echo "Installing with apt: $*"
    # The package lists of a fresh machine are empty or old, so a failure is worth a second try.
    "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null || {
        "${as[@]}" apt-get update </dev/null
        "${as[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends "$@" </dev/null
    }
}

has_version() { # PYTHON
    "$1" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null
}

has_venv() { # PYTHON
    "$1" -c 'import ensurepip, venv' 2>/dev/null
}

has_headers() { # PYTHON
    "$1" -c 'import pathlib, sysconfig, sys
sys.exit(not pathlib.Path(sysconfig.get_path("include"), "Python.h").exists())' 2>/dev/null
}

has_compiler() {
    echo '#include <stdio.h>' | "${CC:-cc}" -E - >/dev/null 2>&1
}

# Prints the first Python of a fitting version, a complete one if there is one. A name may be on
# the PATH and not run, as those of pyenv are, so each is tried.
find_python() {
    local python fitting=''
    for python in ${PYTHON:-python3.13 python3.12 python3.11 python3}; do
        if ! has_version "$python"; then
            continue
        fi
        if has_venv "$python" && has_headers "$python"; then
            echo "$python"
            return
        fi
        fitting=${fitting:-$python}
    done
    echo "$fitting"
}

make_venv() { # FOLDER
    local python name missing=()
    python=$(find_python)
    if [ -z "$python" ]; then
        if [ -n "${PYTHON:-}" ]; then
            fail "PYTHON=$PYTHON is not $versions."
        fi
        apt_install python3 python3-venv python3-dev gcc libc6-dev
        python=$(find_python)
        if [ -z "$python" ]; then
            fail "This system's python3 is too old or too new. Install $versions, then run make again" \
                '(PYTHON=/path/to/python make ... takes one that is not on the PATH).'
        fi
    fi
    # Debian's packages for this very Python: python3.12-venv, python3.12-dev.
    name=python$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    has_venv "$python" || missing+=("$name-venv")
    has_headers "$python" || missing+=("$name-dev")
    has_compiler || missing+=(gcc libc6-dev)
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
    "$python" -m venv "$1"
}

has_program() { # NAME... - whether one of them is there; Debian keeps daemons in /usr/sbin
    local name
    for name in "$@"; do
        if PATH="$PATH:/usr/sbin" command -v "$name" >/dev/null; then
            return
        fi
    done
    return 1
}

# What MicroPython for QEMU's machines is built and run with; dpkg-dev unpacks its sources.
missing_for_qemu() {
    has_program make || echo make
    has_program cc gcc || echo gcc
    has_program dpkg-source || echo dpkg-dev
    has_program xz || echo xz-utils
    has_program arm-none-eabi-gcc || echo gcc-arm-none-eabi
    [ -e /usr/lib/picolibc/arm-none-eabi/include/stdio.h ] || echo picolibc-arm-none-eabi
    has_program riscv64-unknown-elf-gcc || echo gcc-riscv64-unknown-elf
    [ -e /usr/lib/picolibc/riscv64-unknown-elf/include/stdio.h ] || echo picolibc-riscv64-unknown-elf
    has_program qemu-system-arm || echo qemu-system-arm
    has_program qemu-system-riscv32 || echo qemu-system-misc
}

install_for_qemu() {
    local missing=()
    mapfile -t missing < <(missing_for_qemu)
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
}

install_for_pico() {
    local missing=()
    has_program make || missing+=(make)
    has_program cmake || missing+=(cmake)
    has_program c++ g++ || missing+=(g++)
    has_program dpkg-source || missing+=(dpkg-dev)
    has_program xz || missing+=(xz-utils)
    has_program arm-none-eabi-gcc || missing+=(gcc-arm-none-eabi)
    [ -e /usr/lib/arm-none-eabi/newlib/libc.a ] || [ -e /usr/lib/arm-none-eabi/lib/libc.a ] ||
        missing+=(libnewlib-arm-none-eabi)
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
}

install_for_tests() {
    local missing=()
    mapfile -t missing < <(missing_for_qemu)
    has_program mosquitto || missing+=(mosquitto)
    # Test networks live in network namespaces where they may.
    has_program ip || missing+=(iproute2)
    has_program chromium chromium-browser google-chrome || missing+=(chromium)
    # The kernels for the Raspberry Pi's processor are tried on any other, too.
    if [ "$(uname -m)" != aarch64 ]; then
        has_program aarch64-linux-gnu-gcc || missing+=(gcc-aarch64-linux-gnu)
        [ -e /usr/aarch64-linux-gnu/lib/libc.a ] || missing+=(libc6-dev-arm64-cross)
        has_program qemu-aarch64 || missing+=(qemu-user)
    fi
    if [ ${#missing[@]} -gt 0 ]; then
        apt_install "${missing[@]}"
    fi
}

case "${1:-}" in
    venv) make_venv "${2:?folder}" ;;
    test) install_for_tests ;;
    qemu) install_for_qemu ;;
    pico) install_for_pico ;;
    *) fail 'usage: tools/system.sh venv FOLDER | test | qemu | pico' ;;
esac
