#!/usr/bin/env bash
# Checks what the build needs from the system; as root on Debian or Ubuntu, installs what is missing.
# usage: tools/preflight.sh [PYTHON] [--tests|--fuzz]
set -euo pipefail

python=${1:-python3}
packages=()
name=$(basename "$python") # Debian names the packages of python3.12 after it
[[ $name =~ ^python3(\.[0-9]+)?$ ]] || name=python3

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
  echo "vpd needs Python 3.11 or newer, got: $("$python" --version 2>/dev/null || echo "no $python")." >&2
  echo "Name another one with: make PYTHON=python3.12" >&2
  exit 1
fi
"$python" -c 'import venv, ensurepip' 2>/dev/null || packages+=("$name-venv")
"$python" -c 'import os, sys, sysconfig
sys.exit(not os.path.exists(sysconfig.get_path("include") + "/Python.h"))' || packages+=("$name-dev")
command -v c++ >/dev/null || packages+=(g++)
command -v cmake >/dev/null || packages+=(cmake)
for_tests=() # without them tests are skipped
if [[ "${2:-}" == --tests ]]; then
  [[ -e /usr/include/gtest/gtest.h ]] || for_tests+=(libgtest-dev)
  [[ -e /usr/include/opencv4/opencv2/imgcodecs.hpp ]] || for_tests+=(libopencv-dev)
fi
if [[ "${2:-}" == --fuzz ]]; then
  command -v clang++ >/dev/null || packages+=(clang libclang-rt-dev)
  compgen -G '/usr/lib/llvm-*/lib/libomp.so' >/dev/null || packages+=(libomp-dev)
fi
needed=${#packages[@]}
packages+=("${for_tests[@]}")

[[ ${#packages[@]} -eq 0 ]] && exit 0
echo "Missing system packages: ${packages[*]}"
if [[ $(id -u) -eq 0 ]] && command -v apt-get >/dev/null; then
  apt-get update && apt-get install -y --no-install-recommends "${packages[@]}" && exit 0
fi
echo "Install them with: sudo apt-get install ${packages[*]}" >&2
[[ $needed -eq 0 ]] && exit 0
exit 1
