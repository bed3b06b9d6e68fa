#!/bin/sh
# Builds PyCUDA once, on a machine with nvcc but neither a GPU nor a driver, and unpacks it with its
# dependencies into a cache outside the repository. test_fake_driver.py looks for it there.
#
#   tests/runtime/cuda/build_pycuda.sh [PYTHON]       (PYTHON: the interpreter that runs the tests)
#
# About two and a half minutes of processor time. Cache: $LINEWARD_WHEELS, else ~/.cache/lineward/wheels.
# PyPI has only the source of PyCUDA. It wants cuda.h (from nvcc's toolkit) and links to libcuda, which belongs
# to the driver: an empty library stands in for it, because the symbols are looked up only at import.
set -eu

version=2026.1
python=${1:-python3}
wheels=${LINEWARD_WHEELS:-$HOME/.cache/lineward/wheels}
tag=$("$python" -c 'import sys; print("cp%d%d" % sys.version_info[:2])')
site=$wheels/pycuda-$version-$tag
[ -f "$site/.complete" ] && { echo "already built: $site"; exit 0; }

cuda=${CUDA_ROOT:-/usr/local/cuda}
[ -d "$cuda/include" ] || { echo "no CUDA toolkit in $cuda: set CUDA_ROOT" >&2; exit 1; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir -p "$wheels"
cc -shared -Wl,-soname,libcuda.so.1 -o "$work/libcuda.so" -x c /dev/null

"$python" -m pip download --quiet --no-deps --no-binary pycuda --dest "$work" "pycuda==$version"
tar -xzf "$work"/pycuda-*.tar.gz -C "$work"
cat > "$work/pycuda-$version/siteconf.py" <<CONF
CUDA_ROOT = "$cuda"
CUDADRV_LIB_DIR = ["$work"]
CUDA_ENABLE_CURAND = False
CONF
"$python" -m pip wheel --quiet --no-deps --wheel-dir "$wheels" "$work/pycuda-$version"
rm -rf "$site"
"$python" -m pip install --quiet --target "$site" "$wheels/pycuda-$version-$tag"-*.whl
touch "$site/.complete"
echo "built: $site"
