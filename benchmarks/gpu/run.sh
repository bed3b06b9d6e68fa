#!/usr/bin/env bash
# Everything that only a GPU can tell, in one go (about ten minutes on a data-centre GPU; by estimate: it has not been
# run on one yet). Results: benchmarks/results/gpu_*.json. Needs the CUDA toolkit, a C++ compiler, and Python with
# CuPy; installs PyCUDA and Lineward into an environment of its own that sees the system's packages.
#
#   benchmarks/gpu/run.sh
#   PIP_FLAGS='--no-index --find-links wheels' benchmarks/gpu/run.sh       on a machine without a network
set -uo pipefail
cd "$(dirname "$0")/../.."

python=${PYTHON:-python3}
environment=${VENV:-.venv-device}
results=benchmarks/results
failed=()

step() { # name, command...: say how it went, and go on
  local name=$1
  shift
  echo "== $name"
  "$@" || { failed+=("$name"); echo "FAILED: $name"; }
}

need() { command -v "$1" >/dev/null || { echo "cannot run: no $1 on this machine"; exit 2; }; }
need nvidia-smi
need nvcc
need g++
nvidia-smi

test -x "$environment/bin/python" || "$python" -m venv --system-site-packages "$environment"
# nvcc may be a link into the toolkit, which PyCUDA must find with its headers.
export CUDA_ROOT=${CUDA_ROOT:-$(dirname "$(dirname "$(readlink -f "$(command -v nvcc)")")")}
export PATH="$CUDA_ROOT/bin:$PATH"
# shellcheck disable=SC2086
"$environment/bin/pip" install --quiet ${PIP_FLAGS:-} '.[jetson]' || { echo "cannot run: pip failed"; exit 2; }
run() { "$environment/bin/python" "$@"; }
run -c 'import cupy' || { echo "cannot run: no CuPy (pip install cupy-cuda13x)"; exit 2; }

step "correctness" run -m benchmarks.gpu.correctness
if command -v compute-sanitizer >/dev/null; then
  for tool in memcheck racecheck initcheck synccheck; do
    step "compute-sanitizer $tool" compute-sanitizer --tool "$tool" --error-exitcode 9 \
      --log-file "$results/gpu_sanitizer_$tool.txt" "$environment/bin/python" -m benchmarks.gpu.correctness --small
  done
else
  echo "could not check: no compute-sanitizer on this machine"
fi
step "speed" run -m benchmarks.gpu.speed
step "selfcheck" bash -c "'$environment/bin/lineward' selfcheck --json > '$results/gpu_selfcheck.json'"

echo
if ((${#failed[@]})); then
  printf 'FAILED: %s\n' "${failed[@]}"
  exit 1
fi
echo "all steps passed; commit $results/gpu_*"
