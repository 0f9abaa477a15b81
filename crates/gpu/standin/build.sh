#!/bin/sh
# Builds the stand-ins of CUDA's libraries into a folder: build.sh FOLDER [FUNCTION...]
#
# Functions that are named are left out, as in a library that is too old. What was built from the same sources is left as
# it is. It prints a digest of all sources. README.md says what the stand-ins are for. CXX names the compiler [c++].
set -eu
folder=$1
shift
here=$(cd "$(dirname "$0")" && pwd)
CXX=${CXX:-c++}
digest=$(cat "$here"/*.cpp "$here"/*.hpp "$here"/build.sh "$here"/../src/emulated/*.hpp | cksum | tr ' ' -)
if [ "$(cat "$folder/digest" 2>/dev/null)" = "$digest $*" ]; then
    echo "$digest"
    exit 0
fi
mkdir -p "$folder"
part=$(mktemp -d "$folder/part-XXXXXX")
trap 'rm -rf "$part"' EXIT
{
    printf '{ global: *;'
    if [ $# -gt 0 ]; then
        printf ' local:'
        printf ' %s;' "$@"
    fi
    printf ' };\n'
} >"$part/exported"

# build NAME SOURCE...: into the part folder, to be renamed whole.
build() {
    name=$1
    shift
    "$CXX" -std=c++17 -O2 -ftree-vectorize -shared -fPIC -fvisibility=hidden -Wall -Wextra -Werror -Wl,-soname,"$name" \
        -Wl,--version-script="$part/exported" -DSTANDIN_SOURCES="\"$here\"" -o "$part/$name" "$@" -ldl
}
(cd "$here" && build libcuda.so.1 driver.cpp streams.cpp modules.cpp)
(cd "$here" && build libnvrtc.so.13 nvrtc.cpp)
(cd "$here" && build libcublasLt.so.13 lt.cpp "$part/libcuda.so.1")
(cd "$here" && build libnccl.so.2 nccl.cpp "$part/libcuda.so.1")
for name in libcuda.so.1 libnvrtc.so.13 libcublasLt.so.13 libnccl.so.2; do mv "$part/$name" "$folder/$name"; done
echo "$digest $*" >"$folder/digest"
echo "$digest"
