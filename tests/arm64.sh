#!/usr/bin/env bash
# The device's runtime on 64-bit Arm Linux, under qemu's user emulation: its tests, and the same images inspected here
# and there. Numbers must agree, preprocessing to the bit; the time it takes says nothing of a real device.
#
# Needs root on an x86-64 Debian. What is missing is named on a line that begins with SKIPPED, and that is no failure.
#
#   LINEWARD_ARM64   folder that keeps Arm's file system and packages (default ~/.cache/lineward/arm64, about 800 MB)
#   DEBIAN_MIRROR    where Debian's packages come from (default: where apt gets this machine's)
#   PYTHON           the interpreter of this side (default python3)
set -euo pipefail

readonly SUITE=bookworm PYTHON_THERE=python3.11
readonly KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
readonly FORMATS=/proc/sys/fs/binfmt_misc
readonly BUNDLE=tests/runtime/data/tiny.lineward
# The processors to emulate, the first for the tests: a Raspberry Pi 5's, which is the nearest to a Jetson Orin's; an
# old Jetson's; and one with every extension that qemu knows, so that libraries choose other kernels. That last one is
# not for the tests, which take warnings for errors: with SME, OpenBLAS leaves every flag of the floating-point status
# set, so that numpy warns of matrix products that are right.
readonly PROCESSORS=(cortex-a76 cortex-a57 max)
PROCESSOR=${PROCESSORS[0]}
REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
CACHE=${LINEWARD_ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/lineward/arm64}
ROOT=$CACHE/root       # Arm's file system
SITE=$ROOT/opt/site    # the device's packages for Arm
HERE=$CACHE/x86        # the same for this machine, as a virtual environment
PIP=("$HERE/bin/python" -m pip --quiet --disable-pip-version-check)

main() {
  check_machine
  # Mounts are made in a name space of this process: they are gone when it ends, however it ends, and only it sees them.
  [ -n "${LINEWARD_ARM64_UNSHARED:-}" ] ||
    LINEWARD_ARM64_UNSHARED=yes exec unshare --mount --propagation private nice -n 10 bash "$0"
  mkdir -p "$CACHE"
  exec 9>"$CACHE/lock"
  flock 9 # one run at a time
  WORK=$(mktemp -d)
  trap clean_up EXIT
  step "file system" make_root
  step "packages" install_packages
  step "the wheel of this working tree" install_lineward
  step "mounts" mount_all
  step "tests of the runtime" run_tests
  step "tests of the synthetic parts" run_tests_of_parts
  step "lineward verify" verify
  step "the same images here and there" compare
  printf 'arm64: all passed in %d s\n' "$SECONDS"
}

skip() {
  echo "SKIPPED: arm64: $1 is missing"
  exit 0
}

step() {
  local name=$1 began=$SECONDS
  shift
  printf '== arm64: %s\n' "$name"
  "$@"
  printf '== arm64: %s: %d s\n' "$name" $((SECONDS - began))
}

check_machine() {
  [ "$(uname -sm)" = "Linux x86_64" ] || skip "an x86-64 Linux"
  [ "$(id -u)" = 0 ] || skip "root's permission to mount and to chroot"
  # A machine of continuous integration is thrown away afterwards, so there this script installs what it needs itself.
  # On anybody else's it installs nothing.
  if [ "${CI:-}" = true ] && command -v apt-get >/dev/null && ! has_tools >/dev/null; then
    apt-get -qq update
    DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
      qemu-user-static binfmt-support debootstrap debian-archive-keyring >/dev/null
  fi
  local missing
  missing=$(has_tools) || skip "$missing"
  "${PYTHON:-python3}" -c 'import ensurepip, venv' 2>/dev/null || skip "${PYTHON:-python3} with its venv module"
  [ -e "$ROOT" ] || [ -n "$(mirror)" ] || skip "a mirror of Debian in apt's configuration (or in DEBIAN_MIRROR)"
  unshare --mount --propagation private sh -c "mountpoint -q $FORMATS || mount -t binfmt_misc binfmt_misc $FORMATS" \
    2>/dev/null || skip "permission to mount binfmt_misc"
}

# Name what is not installed, if anything.
has_tools() {
  local tool
  for tool in qemu-aarch64-static update-binfmts debootstrap dpkg-deb gpgv unshare flock; do
    command -v "$tool" >/dev/null ||
      { echo "$tool (apt-get install qemu-user-static binfmt-support debootstrap)"; return 1; }
  done
  [ -r "$KEYRING" ] || { echo "$KEYRING (apt-get install debian-archive-keyring)"; return 1; }
}

# Where apt gets Debian itself: it reads its own configuration, in whichever form.
mirror() {
  if [ -n "${DEBIAN_MIRROR:-}" ]; then
    echo "$DEBIAN_MIRROR"
  else
    (
      . /etc/os-release
      [ "$ID" = debian ] || exit 0
      apt-get --print-uris update 2>/dev/null |
        sed -n "s|^'\(https\{0,1\}://.*\)/dists/$VERSION_CODENAME/InRelease'.*|\1|p" | head -n 1
    )
  fi
}

# The second stage of debootstrap would run every package's scripts under emulation, for a quarter of an hour; Python
# needs none of them, so packages are only unpacked, by this machine's own dpkg-deb.
make_root() {
  [ ! -e "$ROOT" ] || return 0
  local archive
  rm -rf "$CACHE/first-stage" "$CACHE/unpacked"
  debootstrap --foreign --arch=arm64 --variant=minbase --include="$PYTHON_THERE,libgomp1,libstdc++6" \
    --keyring="$KEYRING" --force-check-gpg "$SUITE" "$CACHE/first-stage" "$(mirror)" >"$CACHE/debootstrap.log" ||
    { tail -n 20 "$CACHE/debootstrap.log"; return 1; }
  mkdir "$CACHE/unpacked"
  for archive in "$CACHE"/first-stage/var/cache/apt/archives/*.deb; do
    dpkg-deb -x "$archive" "$CACHE/unpacked"
  done
  mkdir -p "$CACHE/unpacked"/{dev,proc,tmp,opt/lineward,opt/repository,opt/work}
  mv "$CACHE/unpacked" "$ROOT" # under its name only when complete
  rm -r "$CACHE/first-stage"
}

build_wheel() {
  # From a copy: setuptools leaves folders in the tree that it builds, and would pack a deleted module from them again.
  mkdir "$WORK/tree" "$WORK/wheel"
  (cd "$REPOSITORY" && cp -r pyproject.toml README.md LICENSE runtime calibration export "$WORK/tree")
  "${PIP[@]}" wheel --no-deps --wheel-dir "$WORK/wheel" "$WORK/tree"
  WHEEL=$(echo "$WORK"/wheel/*.whl)
}

# Both sides get the same versions, and install again when what decides them has changed.
install_packages() {
  local minor platforms=(--platform manylinux2014_aarch64) wanted
  wanted=$(cat "$REPOSITORY"/{pyproject.toml,constraints.txt} "$0" | sha256sum)
  [ -x "$HERE/bin/python" ] && "$HERE/bin/python" -c '' || rm -rf "$HERE" "$CACHE/installed"
  [ -e "$HERE" ] || "${PYTHON:-python3}" -m venv "$HERE"
  build_wheel
  [ "$(cat "$CACHE/installed" 2>/dev/null)" != "$wanted" ] || return 0
  rm -rf "$SITE" "$CACHE/installed"
  "${PIP[@]}" install --constraint "$REPOSITORY/constraints.txt" "$WHEEL"
  for minor in {36..17}; do # Debian bookworm has glibc 2.36
    platforms+=(--platform "manylinux_2_${minor}_aarch64")
  done
  "${PIP[@]}" install --constraint "$REPOSITORY/constraints.txt" --target "$SITE" --only-binary :all: \
    --implementation cp --python-version "${PYTHON_THERE#python}" "${platforms[@]}" "$WHEEL" pytest hypothesis
  rm -r "$SITE"/lineward "$SITE"/lineward-*
  echo "$wanted" >"$CACHE/installed"
}

install_lineward() {
  rm -rf "$ROOT/opt/lineward"
  "${PIP[@]}" install --no-deps --force-reinstall "$WHEEL"
  "${PIP[@]}" install --no-deps --target "$ROOT/opt/lineward" "$WHEEL"
}

mount_all() {
  mountpoint -q "$FORMATS" || mount -t binfmt_misc binfmt_misc "$FORMATS"
  if [ ! -e "$FORMATS/qemu-aarch64" ]; then
    update-binfmts --enable qemu-aarch64 # the kernel keeps the emulator open: it need not lie in the file system
    ENABLED=yes
  fi
  mount --rbind /dev "$ROOT/dev"
  mount -t proc proc "$ROOT/proc"
  mount -t tmpfs tmpfs "$ROOT/tmp"
  mount --bind "$WORK" "$ROOT/opt/work"
  mount --bind "$REPOSITORY" "$ROOT/opt/repository"
  mount -o remount,bind,ro "$ROOT/opt/repository"
  [ "$(there -c 'import platform; print(platform.machine())')" = aarch64 ]
}

clean_up() {
  [ -z "${ENABLED:-}" ] || update-binfmts --disable qemu-aarch64
  rm -rf --one-file-system "$WORK"
}

# Python on Arm, in the repository. Lines about the processor are left out: qemu shows onnxruntime none.
there() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 QEMU_CPU="$PROCESSOR" \
    PYTHONPATH=/opt/lineward:/opt/site HYPOTHESIS_STORAGE_DIRECTORY=/tmp/hypothesis \
    chroot "$ROOT" /bin/sh -c 'cd /opt/repository && exec "$@"' sh "$PYTHON_THERE" "$@" 2> >(grep -v cpuinfo >&2)
}

# Not one test need be left out: emulation makes them some five times slower, not the hundred of a large matrix product.
run_tests() {
  there -m pytest -p no:cacheprovider tests/runtime/test_{preprocessing,anomaly_map,inspector,golden,imports}.py \
    tests/runtime/engines/test_onnxruntime.py
}

# Without conftest.py, which wants the workstation's packages.
run_tests_of_parts() {
  there -m pytest -p no:cacheprovider --noconftest tests/export/test_synthetic.py
}

verify() {
  there /opt/lineward/bin/lineward verify "$BUNDLE"
}

# The golden images, and the good one in the other sizes, depths and formats of a camera.
compare() {
  local PROCESSOR status=0
  cat >"$WORK/images.py" <<'PYTHON'
import pathlib
import sys

import cv2
import numpy as np

from lineward.runtime.bundle import read_bundle

bundle, folder = read_bundle(sys.argv[1]), pathlib.Path(sys.argv[2])
for golden in bundle.manifest.golden:
    (folder / pathlib.Path(golden.image).name).write_bytes(bundle.members[golden.image])
good = cv2.imread(str(folder / "good.png"))
large = cv2.resize(good, (640, 480), interpolation=cv2.INTER_CUBIC)
frames = {
    "odd.png": cv2.resize(good, (157, 131), interpolation=cv2.INTER_CUBIC),
    "large.png": large,
    "photo.jpg": large,
    "deep.png": large.astype(np.uint16) * 257,
    "gray.png": cv2.cvtColor(large, cv2.COLOR_BGR2GRAY),
    "inverted.png": 255 - large,
    "noise.png": np.random.RandomState(0).randint(0, 256, (900, 1200, 3)).astype(np.uint8),
}
for name, frame in frames.items():
    cv2.imwrite(str(folder / name), frame)
PYTHON
  cat >"$WORK/pixels.py" <<'PYTHON'
import hashlib
import pathlib
import sys

from lineward.runtime.bundle import read_bundle
from lineward.runtime.images import read_image
from lineward.runtime.preprocessing import preprocess

bundle = read_bundle(sys.argv[1])
for path in sorted(pathlib.Path(sys.argv[2]).iterdir()):
    pixels = preprocess(read_image(path), bundle.manifest.preprocessing)
    print(path.name, hashlib.sha256(pixels.tobytes()).hexdigest())
PYTHON
  cat >"$WORK/compare.py" <<'PYTHON'
import json
import pathlib
import sys

TOLERANCE = 1e-4


def results(side):
    pixels = dict(line.split() for line in pathlib.Path(f"{side}.pixels").read_text().splitlines())
    rows = [json.loads(line) for line in pathlib.Path(f"{side}.jsonl").read_text().splitlines()]
    names = [pathlib.Path(row["path"]).name for row in rows]
    return {name: (row["score"], row["verdict"], pixels[name]) for name, row in zip(names, rows, strict=True)}


here, there = results("here"), results("there")
assert here.keys() == there.keys(), (here, there)
assert {verdict for _, verdict, _ in here.values()} == {"pass", "reject"}, here
print(f"{'image':12} {'pixels':9} {'x86-64':>11} {'arm64':>11} {'difference':>11}  verdict")
greatest, same = 0.0, True
for name, (score, verdict, pixels) in here.items():
    other, other_verdict, other_pixels = there[name]
    difference = abs(other - score)
    greatest = max(greatest, difference)
    same &= pixels == other_pixels and verdict == other_verdict and difference <= TOLERANCE
    verdicts = verdict if verdict == other_verdict else f"{verdict}, there {other_verdict}"
    equal = "equal" if pixels == other_pixels else "DIFFERENT"
    print(f"{name:12} {equal:9} {score:11.8f} {other:11.8f} {difference:11.1e}  {verdicts}")
print(f"greatest difference {greatest:.1e}, allowed {TOLERANCE:.0e}")
sys.exit(not same)
PYTHON
  mkdir "$WORK/images"
  "$HERE/bin/python" "$WORK/images.py" "$REPOSITORY/$BUNDLE" "$WORK/images"
  "$HERE/bin/python" "$WORK/pixels.py" "$REPOSITORY/$BUNDLE" "$WORK/images" >"$WORK/here.pixels"
  inspect "$HERE/bin/lineward" inspect --format jsonl "$REPOSITORY/$BUNDLE" "$WORK/images" >"$WORK/here.jsonl"
  for PROCESSOR in "${PROCESSORS[@]}"; do
    there /opt/work/pixels.py "$BUNDLE" /opt/work/images >"$WORK/there.pixels"
    inspect there /opt/lineward/bin/lineward inspect --format jsonl "$BUNDLE" /opt/work/images >"$WORK/there.jsonl"
    echo "on an emulated $PROCESSOR:"
    (cd "$WORK" && "$HERE/bin/python" compare.py) || status=1
  done
  return $status
}

# A rejected image, exit code 1, is a result like another.
inspect() {
  "$@" || [ $? = 1 ]
}

main
