#!/usr/bin/env bash
# An archive of `lineward image`, installed on this machine as root with the network blocked, in name spaces of its own: all
# that it writes (/etc, /opt, /var/lib) is gone when this ends. A user is made, bundles go through the slots, and golden
# images are inspected by what was installed. An upgrade, a second run and an older archive follow.
#
# What this does not prove: systemd and udev (hidden here), cameras, GPIO, a GPU, another distribution.
#
# Needs root on Linux x86-64, and permission to mount. What is missing is named on a line that begins with SKIPPED, and
# that is no failure.
#
#   PYTHON           an interpreter with lineward[export,station] (default .venv/bin/python)
set -euo pipefail

REPOSITORY=$(cd "$(dirname "$0")/.." && pwd)
PYTHON=${PYTHON:-$REPOSITORY/.venv/bin/python}

skip() {
  echo "SKIPPED: image: $1"
  exit 0
}

step() { echo "== image: $*"; }

[ "$(uname -sm)" = "Linux x86_64" ] || skip "no x86-64 Linux"
[ "$(id -u)" = 0 ] || skip "no root's permission to make users and to mount"
for tool in unshare mount runuser useradd openssl; do
  command -v "$tool" >/dev/null || skip "no $tool"
done
"$PYTHON" -c 'import lineward.export.provisioning.image' 2>/dev/null || skip "$PYTHON has no lineward[export,station]"
# A Python that users may run: not one in root's home.
VERSION=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
BASE=''
for candidate in "$("$PYTHON" -c 'import os, sys; print(os.path.realpath(sys._base_executable))')" \
  "/usr/local/bin/python$VERSION" "/usr/bin/python$VERSION"; do
  [ -n "$BASE" ] || ! (cd / && runuser -u nobody -- "$candidate" -c 'import venv') 2>/dev/null || BASE=$candidate
done
[ -n "$BASE" ] || skip "no Python $VERSION with its module venv that users may run (apt-get install python3-venv)"

# The first half has a network, for pip; the second has none.
if [ -z "${LINEWARD_IMAGE:-}" ]; then
  WORK=$(mktemp -d)
  trap 'rm -rf --one-file-system "$WORK"' EXIT
  cat >"$WORK/station.toml" <<'TOML'
name = "line-3"
folder = "/var/lib/lineward/line-3"
deadline = "2s"
jobs = { 1 = "/var/lib/lineward/line-3/slots/tiny" }
camera = { kind = "folder", path = "/var/lib/lineward/line-3/in" }
TOML
  cat >"$WORK/make.py" <<'PYTHON'
import sys
from pathlib import Path

import msgspec

from lineward.export.provisioning.image import Station, write_image
from lineward.export.provisioning.target import find_target
from lineward.export.provisioning.wheelhouse import read_lock
from lineward.export.signing import make_key, open_key, sign_bundle
from lineward.runtime.bundle import decode_bundle, encode_bundle

work, repository = Path(sys.argv[1]), Path(sys.argv[2])
tiny = decode_bundle((repository / "tests/runtime/data/tiny.lineward").read_bytes(), "tiny")
make_key(work, "maker", b"secret")
key = open_key(work / "maker.key", b"secret")
(work / "keys").mkdir(mode=0o755)
(work / "maker.pub").replace(work / "keys" / "maker.pub")
target = find_target("x86_64", None)
for version in (1, 2):
    bundle = work / "tiny.lineward"
    bundle.write_bytes(encode_bundle(msgspec.structs.replace(tiny.manifest, version=version), tiny.members))
    sign_bundle(bundle, key)
    image = write_image(
        work / f"{version}.tar.gz",
        target,
        Station(work / "station.toml", [bundle], work / "keys"),
        lock=read_lock(repository / "constraints.txt", target),
        key=key,
    )
    print(f"version {version}: {image.size / 1e6:.1f} MB, {len(image.wheels)} wheels")
for golden in tiny.manifest.golden:
    (work / Path(golden.image).name).write_bytes(tiny.members[golden.image])
(work / "scores").write_text("".join(f"{golden.image_score}\n" for golden in tiny.manifest.golden))
PYTHON
  step "two archives, of versions 1 and 2 of a bundle"
  "$PYTHON" "$WORK/make.py" "$WORK" "$REPOSITORY"
  "$PYTHON" -c 'import sys; from lineward.runtime.cli import main; sys.exit(main(sys.argv[1:]))' \
    key show --pem "$WORK/keys/maker.pub" >"$WORK/maker.pem"
  chmod 755 "$WORK"
  LINEWARD_IMAGE=$WORK unshare --mount --net --propagation private bash "$0"
  exit
fi

WORK=$LINEWARD_IMAGE
mkdir "$WORK/layers"
mount -t tmpfs tmpfs "$WORK/layers" || skip "no permission to mount"
for folder in /etc /opt /var/lib; do
  layer=$WORK/layers$folder
  mkdir -p "$layer/upper" "$layer/work"
  mount -t overlay overlay -o "lowerdir=$folder,upperdir=$layer/upper,workdir=$layer/work" "$folder" 2>/dev/null ||
    skip "no overlay over $folder"
done
mount -t tmpfs tmpfs /run # no systemd, no udev to be told
[ ! -e /opt/lineward ] && [ ! -e /etc/lineward ] || skip "this machine is a station"
if "$BASE" -c 'import socket; socket.create_connection(("192.0.2.1", 9), 5)' 2>"$WORK/reach"; then exit 1; fi
grep -q unreachable "$WORK/reach"

cd "$WORK"
unpack() {
  mkdir "$WORK/unpacked$1"
  tar -xzf "$WORK/$1.tar.gz" -C "$WORK/unpacked$1"
  (
    cd "$WORK/unpacked$1/lineward-line-3"
    openssl pkeyutl -verify -pubin -inkey "$WORK/maker.pem" -rawin -in SHA256SUMS -sigfile SHA256SUMS.sig
    sha256sum --check --quiet SHA256SUMS
  )
}
install_it() { "$WORK/unpacked$1/lineward-line-3/install.sh" --python "$BASE"; }
lineward() { (cd / && runuser -u lineward -- /opt/lineward/bin/lineward "$@"); }
is_active() {
  lineward slots /etc/lineward/line-3.toml >"$WORK/slots"
  grep -q "^ *$1-.*active" "$WORK/slots"
}

step "the archive's signature, and its hashes"
unpack 1
unpack 2
step "install.sh"
install_it 1 | tee "$WORK/first"
grep -q "engine cpu: 2 golden images" "$WORK/first"
is_active 1
[ "$(stat -c %U /var/lib/lineward/line-3/slots)" = lineward ]
step "again"
install_it 1 | tee "$WORK/again" | tail -n 1
grep -q "nothing to change" "$WORK/again"
step "lineward selfcheck"
lineward selfcheck "$(echo /var/lib/lineward/line-3/slots/tiny/1-*.lineward)" >"$WORK/selfcheck"
grep "golden images" "$WORK/selfcheck"
step "lineward inspect, of golden images"
cp "$WORK"/{good,defect}.png /var/lib/lineward/
lineward inspect --format jsonl /var/lib/lineward/line-3/slots/tiny/1-*.lineward /var/lib/lineward/{good,defect}.png \
  >"$WORK/inspected" || [ $? = 1 ]
"$BASE" - "$WORK/inspected" "$WORK/scores" <<'PYTHON'
import json
import sys

here = [json.loads(line)["score"] for line in open(sys.argv[1])]
packed = [float(line) for line in open(sys.argv[2])]
assert len(here) == len(packed) == 2, here
for score, due in zip(here, packed):
    assert abs(score - due) <= 1e-4, (score, due)
    print(f"image score {score:.8f}, packed {due:.8f}")
PYTHON
step "an upgrade: version 2 becomes active, version 1 is kept before it"
install_it 2 >"$WORK/upgrade"
is_active 2
grep "^ *1-.*before" "$WORK/slots"
step "a rollback on the device stays, whoever runs install.sh again"
lineward rollback /etc/lineward/line-3.toml --why "too strict" >/dev/null
install_it 2 | tail -n 1
is_active 1
lineward deploy /etc/lineward/line-3.toml /opt/lineward/slots/tiny.lineward >/dev/null
is_active 2
step "the older archive is refused, and nothing changes"
if install_it 1 >"$WORK/older" 2>&1; then exit 1; fi
grep "tiny.lineward is not deployed" "$WORK/older"
is_active 2
printf 'image: all passed in %d s\n' "$SECONDS"
