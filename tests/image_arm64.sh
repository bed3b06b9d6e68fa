#!/usr/bin/env bash
# An archive of `lineward image`, installed on 64-bit Arm Linux under qemu's user emulation with the network blocked:
# verify and inspect golden images there, and compare with this machine. Arm's file system is that of tests/arm64.sh.
#
# Debian 12's Python is 3.11, JetPack's 3.10 or 3.12, so the archive is for a target that no user can name. What this does
# not prove: JetPack's own wheels and libraries, systemd, users and groups, cameras, GPIO, a GPU.
#
# Needs root on an x86-64 Debian, and that tests/arm64.sh has run once. What is missing is named on a line that begins with
# SKIPPED, and that is no failure.
#
#   LINEWARD_ARM64   folder that keeps Arm's file system (default ~/.cache/lineward/arm64)
#   PYTHON           an interpreter of this side with lineward[export,station] (default .venv/bin/python)
set -euo pipefail

REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
CACHE=${LINEWARD_ARM64:-${XDG_CACHE_HOME:-$HOME/.cache}/lineward/arm64}
ROOT=$CACHE/root
PYTHON=${PYTHON:-$REPOSITORY/.venv/bin/python}
readonly FORMATS=/proc/sys/fs/binfmt_misc

skip() {
  echo "SKIPPED: image-arm64: $1"
  exit 0
}

[ "$(uname -sm)" = "Linux x86_64" ] || skip "no x86-64 Linux"
[ "$(id -u)" = 0 ] || skip "no root's permission to mount and to chroot"
[ -d "$ROOT/opt" ] || skip "no file system in $ROOT (make test-arm64 makes it)"
command -v update-binfmts >/dev/null || skip "no update-binfmts (apt-get install qemu-user-static binfmt-support)"
"$PYTHON" -c 'import lineward.export.provisioning.image' 2>/dev/null || skip "$PYTHON has no lineward[export,station]"
# Mounts and network are of this process: gone when it ends. Packages are fetched before, by a first half with a network.
if [ -z "${LINEWARD_IMAGE:-}" ]; then
  LINEWARD_IMAGE=$(mktemp -d)
  trap 'rm -rf --one-file-system "$LINEWARD_IMAGE"' EXIT
  cat >"$LINEWARD_IMAGE/station.toml" <<'TOML'
name = "line-3"
folder = "/var/lib/lineward/line-3"
deadline = "150ms"
jobs = { 1 = "tiny.lineward" }
camera = { kind = "folder", path = "/srv/in" }
TOML
  cat >"$LINEWARD_IMAGE/make.py" <<'PYTHON'
import sys
from pathlib import Path

from lineward.export.provisioning.image import Station, write_image
from lineward.export.provisioning.target import Target
from lineward.export.provisioning.wheelhouse import read_lock

work, repository = Path(sys.argv[1]), Path(sys.argv[2])
target = Target("debian12", "aarch64", (3, 11), (2, 36))
station = Station(work / "station.toml", [repository / "tests/runtime/data/tiny.lineward"], None)
image = write_image(work / "x.tar.gz", target, station, lock=read_lock(repository / "constraints.txt", target))
print(f"{image.size / 1e6:.1f} MB, {len(image.wheels)} wheels")
PYTHON
  cat >"$LINEWARD_IMAGE/results.py" <<'PYTHON'
import hashlib
import json
import sys

from lineward.runtime.bundle import read_bundle
from lineward.runtime.engines import open_engine
from lineward.runtime.images import decode_image
from lineward.runtime.inspector import Inspector
from lineward.runtime.preprocessing import preprocess

bundle = read_bundle(sys.argv[1])
inspector = Inspector(bundle, open_engine(bundle, "cpu"))
for golden in bundle.manifest.golden:
    frame = decode_image(bundle.members[golden.image], golden.image)
    pixels = hashlib.sha256(preprocess(frame, bundle.manifest.preprocessing).tobytes()).hexdigest()
    print(json.dumps([golden.image, pixels, inspector.inspect(frame).score]))
PYTHON
  cat >"$LINEWARD_IMAGE/compare.py" <<'PYTHON'
import json
import sys
from pathlib import Path

TOLERANCE = 1e-4
here, there = ([json.loads(line) for line in Path(name).read_text().splitlines()] for name in sys.argv[1:])
assert len(here) == len(there) == 2
for (name, pixels, score), (other_name, other_pixels, other) in zip(here, there, strict=True):
    assert name == other_name
    assert pixels == other_pixels, f"{name}: pixels differ"
    assert abs(score - other) <= TOLERANCE, f"{name}: {score} here, {other} there"
    print(f"{name:20} pixels equal, score {score:.8f} here, {other:.8f} there, difference {abs(score - other):.1e}")
PYTHON
  echo "== image-arm64: the archive"
  "$PYTHON" "$LINEWARD_IMAGE/make.py" "$LINEWARD_IMAGE" "$REPOSITORY"
  "$PYTHON" "$LINEWARD_IMAGE/results.py" "$REPOSITORY/tests/runtime/data/tiny.lineward" >"$LINEWARD_IMAGE/here"
  PYTHON=$PYTHON LINEWARD_ARM64=$CACHE LINEWARD_IMAGE=$LINEWARD_IMAGE \
    unshare --mount --net --propagation private nice -n 10 bash "$0"
  exit
fi

WORK=$LINEWARD_IMAGE
exec 9>"$CACHE/lock"
flock 9 # one at a time in that file system, tests/arm64.sh included
mountpoint -q "$FORMATS" || mount -t binfmt_misc binfmt_misc "$FORMATS" || skip "no permission to mount binfmt_misc"
if [ ! -e "$FORMATS/qemu-aarch64" ]; then
  update-binfmts --enable qemu-aarch64
  trap 'update-binfmts --disable qemu-aarch64' EXIT
fi
mount --rbind /dev "$ROOT/dev"
mount -t proc proc "$ROOT/proc"
mount -t tmpfs tmpfs "$ROOT/tmp"
mount --bind "$WORK" "$ROOT/opt/work"
mkdir "$WORK/device"
tar -xzf "$WORK/x.tar.gz" -C "$WORK"

there() {
  env -i PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/tmp LANG=C.UTF-8 QEMU_CPU=cortex-a76 chroot "$ROOT" "$@" \
    2> >(grep -v cpuinfo >&2)
}

install_there() { there /bin/bash /opt/work/lineward-line-3/install.sh --root /opt/work/device; }

echo "== image-arm64: install.sh"
install_there | tee "$WORK/first"
grep -q "ok  *machine: aarch64" "$WORK/first"
grep -q "ok  *engine cpu: 2 golden images" "$WORK/first"
echo "== image-arm64: again"
install_there | tee "$WORK/second" | tail -n 1
grep -q "nothing to change" "$WORK/second"
echo "== image-arm64: inspect and compare"
BUNDLE=/opt/work/device/etc/lineward/tiny.lineward
there /opt/work/device/opt/lineward/bin/lineward verify "$BUNDLE" | grep golden
there /opt/work/device/opt/lineward/current/bin/python /opt/work/results.py "$BUNDLE" >"$WORK/there"
"$PYTHON" "$WORK/compare.py" "$WORK/here" "$WORK/there"
echo "== image-arm64: refused on another architecture"
if bash "$WORK/lineward-line-3/install.sh" --root "$WORK/device" --python "$PYTHON" 2>"$WORK/refused"; then exit 1; fi
grep "this device is x86_64, and the archive is for aarch64" "$WORK/refused"
printf 'image-arm64: all passed in %d s\n' "$SECONDS"
