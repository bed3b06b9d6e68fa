#!/usr/bin/env bash
# Makes this device a station of Lineward, from the files beside this script and from nothing else: no network is used.
#
#   ./install.sh [--dry-run] [--root FOLDER] [--python PROGRAM]
#
#   --dry-run          check the archive and this device, say what would be done, change nothing
#   --root FOLDER      install below this folder; users, groups and systemd are left alone (for tests and system images)
#   --python PROGRAM   the device's Python (default: python3.N as the archive wants it, else python3)
#
# Bundles for slots are deployed by `lineward deploy`, as the station's user, once each: what has been made active since on
# this device stays so. With --root they are only laid below /opt/lineward/slots.
#
# It may be run again, and be interrupted: what is there already stays. Journal and images are never touched, nor is
# a file that was changed on this device. Exit codes: 0 installed, or nothing to do; 2 not installed, and why.
set -euo pipefail
umask 022
unset PYTHONPATH PYTHONHOME LINEWARD_KEYS BASH_ENV CDPATH
export LC_ALL=C PYTHONDONTWRITEBYTECODE=1 PIP_CONFIG_FILE=/dev/null

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
ROOT='' DRY='' PYTHON='' CHANGES=0 KEPT=0 BEFORE=''

main() {
  read_words "$@"
  check_archive
  # shellcheck source=/dev/null
  . "$HERE/image" # of which the hash was just checked
  check_device
  OPT=$ROOT/opt/lineward
  RELEASE=$OPT/releases/$(sha256 "$HERE/requirements.lock" | cut -c 1-16)
  RECORD=$OPT/installed.sha256
  say "station $STATION, for $TARGET: archive whole, $MACHINE and Python $PYTHON_VERSION as it wants them"
  [ -n "$DRY" ] || lock
  make_user
  make_release
  [ -n "$DRY" ] || prove_release
  place_files
  switch_release
  tell_systemd
  if [ -n "$DRY" ]; then
    deploy_bundles
    say "dry run: $CHANGES changes would be made, none was"
    return
  fi
  verify_bundles
  deploy_bundles
  drop_old_releases
  finish
}

say() { printf 'install: %s\n' "$*"; }

fail() {
  printf 'install: %s\n  -> %s\n' "$1" "$2" >&2
  exit 2
}

read_words() {
  while [ $# -gt 0 ]; do
    case $1 in
      --dry-run) DRY=yes ;;
      --root) [ -d "${2:-}" ] || fail "--root: no folder ${2:-}" "make it first"; ROOT=$(cd "$2" && pwd -P); shift ;;
      --python) [ -n "${2:-}" ] || fail "--python names nothing" "name the device's Python"; PYTHON=$2; shift ;;
      *) fail "$1: not understood" "./install.sh [--dry-run] [--root FOLDER] [--python PROGRAM]" ;;
    esac
    shift
  done
  [ "$ROOT" != / ] || ROOT=''
}

sha256() { sha256sum "$1" | cut -d ' ' -f 1; }

# Every file as it was packed, and not one more. This tells damage; who made the archive is told by SHA256SUMS.sig, which is
# for a person to check before this script is run (docs/provisioning.md), and of the bundles by their signatures.
check_archive() {
  local again="unpack the archive again; if that does not help, copy it again and compare its sha256"
  [ -f "$HERE/SHA256SUMS" ] || fail "$HERE: SHA256SUMS is missing" "$again"
  local wrong
  wrong=$(cd "$HERE" && sha256sum --check --strict --quiet SHA256SUMS 2>&1) ||
    fail "the archive is damaged or was changed: $(head -n 3 <<<"$wrong" | tr '\n' ';')" "$again"
  wrong=$(cd "$HERE" && comm -3 <(cut -c 67- SHA256SUMS | sort) \
    <(find . ! -type d ! -path ./SHA256SUMS ! -path ./SHA256SUMS.sig | sed 's|^\./||' | sort) | tr -d '\t' | head -n 3 | tr '\n' ';')
  [ -z "$wrong" ] || fail "files that are not of the archive: $wrong" "$again"
  wrong=$(find "$HERE" -type l | head -n 1)
  [ -z "$wrong" ] || fail "a link where a file was packed: $wrong" "$again"
}

check_device() {
  local machine libc
  machine=$(uname -m)
  [ "$machine" = "$MACHINE" ] || fail "this device is $machine, and the archive is for $MACHINE ($TARGET)" \
    "make one for this device: lineward image --target"
  [ -n "$ROOT" ] || [ "$(id -u)" = 0 ] || fail "installing takes root" "sudo ./install.sh"
  [ -z "$PYTHON" ] && PYTHON=$(command -v "python$PYTHON_VERSION" || command -v python3 || true)
  [ -n "$PYTHON" ] || fail "there is no Python on this device" "it takes Python $PYTHON_VERSION"
  local found
  found=$("$PYTHON" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>&1) ||
    fail "$PYTHON does not run: $found" "name this device's Python $PYTHON_VERSION with --python"
  [ "$found" = "$PYTHON_VERSION" ] ||
    fail "$PYTHON is Python $found, and the archive's packages are for $PYTHON_VERSION ($TARGET)" \
      "name a Python $PYTHON_VERSION with --python, or make an archive for $found"
  libc=$("$PYTHON" -c 'import os; print(os.confstr("CS_GNU_LIBC_VERSION").split(".")[1])' 2>/dev/null || echo 0)
  [ "$libc" -ge "$GLIBC_MINOR" ] ||
    fail "the C library is glibc 2.$libc, and the packages take 2.$GLIBC_MINOR or newer" "make an archive for this system"
}

lock() {
  mkdir -p "$OPT"
  exec 9>>"$OPT/.lock"
  flock -n 9 || fail "another install.sh is at work on this device" "wait until it has ended"
}

change() {
  CHANGES=$((CHANGES + 1))
  say "${DRY:+would: }$*"
  [ -z "$DRY" ]
}

make_user() {
  local group
  [ -z "$ROOT" ] || return 0
  if ! getent passwd lineward >/dev/null; then
    ! change "make the user lineward, who cannot log in" ||
      useradd --system --user-group --home-dir /var/lib/lineward --no-create-home --shell /usr/sbin/nologin lineward
  fi
  for group in $GROUPS_NEEDED; do # the unit names them, and systemd starts no service of a group that is not there
    getent group "$group" >/dev/null || ! change "make the group $group" || groupadd --system "$group"
  done
}

# A virtual environment for exactly this lock. It is complete when its mark is there: the last thing that is written.
make_release() {
  [ ! -e "$RELEASE/complete" ] || return 0
  change "install $(grep -c . "$HERE/requirements.lock") packages into $RELEASE" || return 0
  local words=(--without-pip) pip
  [ "$SYSTEM_PACKAGES" = no ] || words+=(--system-site-packages)
  rm -rf "$RELEASE"
  mkdir -p "$(dirname "$RELEASE")"
  "$PYTHON" -m venv "${words[@]}" "$RELEASE" ||
    fail "$PYTHON cannot make a virtual environment" "check the disk's space; on Debian, install python3-venv"
  pip=$(echo "$HERE"/wheelhouse/pip-*.whl)
  # What the system has is not good enough, even of the same version: only these files are known by their hash.
  "$RELEASE/bin/python" "$pip/pip" --isolated --quiet --no-cache-dir --disable-pip-version-check install --no-index \
    --find-links "$HERE/wheelhouse" --require-hashes --only-binary :all: --ignore-installed \
    --requirement "$HERE/requirements.lock" || fail "the packages cannot be installed" "see above; check the disk's space"
  cp "$HERE/requirements.lock" "$HERE/sbom.cdx.json" "$HERE/LICENCES.txt" "$RELEASE"
  sync -f "$RELEASE"
  : >"$RELEASE/complete"
  sync -f "$RELEASE/complete"
}

keys_of() { # of a tree: its folder of keys, if there is one
  local found
  found=$(find "$1/etc/lineward" "$1/var/lib/lineward" -name '*.pub' -print -quit 2>/dev/null || true)
  [ -z "$found" ] || dirname "$found"
}

bundles_of() { (cd "$HERE/device" && find . -name '*.lineward' | sed 's|^\.||' | sort); }

# The first of all, to prove the runtime with.
any_bundle() { find "$HERE" -name '*.lineward' | sort | sed -n 1p; }

# Before anything of the device is changed: a runtime that does not work here leaves the old one at work.
prove_release() {
  local keys bundle
  keys=$(keys_of "$HERE/device")
  bundle=$(any_bundle)
  [ -n "$ROOT" ] || (cd / && runuser -u lineward -- "$RELEASE/bin/python" -c '') ||
    fail "$PYTHON cannot be run by the station's user, lineward" "name one with --python that does not lie in a home folder"
  say "lineward selfcheck"
  env ${keys:+"LINEWARD_KEYS=$keys"} "$RELEASE/bin/lineward" selfcheck "$bundle" ||
    fail "this device fails the self-check" "nothing was switched; see the lines that say FAILED above"
}

# Each file by one rename. One that was changed on this device since it was placed here (a station file that was edited, a
# bundle that was calibrated or deployed) is kept, and the archive's is laid aside.
place_files() {
  local file target now
  while read -r file; do
    target=$ROOT$file
    if [ ! -e "$target" ]; then
      ! change "place $file" || place "$HERE/device$file" "$target"
    elif cmp -s "$HERE/device$file" "$target"; then
      :
    elif [ "$(basename "$file")" = revoked ]; then
      merge_revoked "$file"
      continue
    else
      now=$(sha256 "$target")
      if grep -qxF "$now  $file" "$RECORD" 2>/dev/null; then
        ! change "replace $file" || place "$HERE/device$file" "$target"
      else
        KEPT=$((KEPT + 1))
        say "KEPT $file, which was changed on this device; the archive's lies in /opt/lineward/set-aside$file"
        if ! cmp -s "$HERE/device$file" "$OPT/set-aside$file"; then
          ! change "lay the archive's $file aside" || place "$HERE/device$file" "$OPT/set-aside$file"
        fi
        continue
      fi
    fi
    [ -n "$DRY" ] || remember "$file"
  done < <(cd "$HERE/device" && find . -type f | sed 's|^\.||' | sort)
}

# Whether a key that once was revoked is trusted again is for a person to decide, on the device.
merge_revoked() {
  local merged
  merged=$(sed '$a\' "$ROOT$1" && { grep -vxFf "$ROOT$1" "$HERE/device$1" || [ $? = 1 ]; })
  [ "$merged" != "$(cat "$ROOT$1")" ] || return 0
  change "add to $1" || return 0
  printf '%s\n' "$merged" >"$OPT/.revoked"
  place "$OPT/.revoked" "$ROOT$1"
  rm "$OPT/.revoked"
}

place() {
  install -d -m 755 "$(dirname "$2")"
  install -m 644 "$1" "$(dirname "$2")/.$(basename "$2").partial"
  sync "$(dirname "$2")/.$(basename "$2").partial"
  mv -fT "$(dirname "$2")/.$(basename "$2").partial" "$2"
  sync "$(dirname "$2")"
}

remember() { record "$1" "$(sha256 "$HERE/device$1")  $1"; }

record() { # what it is about, and the line that says so in place of the one before
  local line=$2 old
  ! grep -qxF "$line" "$RECORD" 2>/dev/null || return 0
  [ -e "$RECORD" ] || : >"$RECORD"
  { while read -r old; do [ "${old:66}" = "$1" ] || echo "$old"; done <"$RECORD"; echo "$line"; } >"$RECORD.partial"
  sync "$RECORD.partial"
  mv -f "$RECORD.partial" "$RECORD"
}

switch_release() {
  BEFORE=$(readlink "$OPT/current" 2>/dev/null || true)
  if [ "$BEFORE" != "releases/$(basename "$RELEASE")" ]; then
    ! change "switch /opt/lineward/current to releases/$(basename "$RELEASE")" ||
      switch_to "releases/$(basename "$RELEASE")" current
  fi
  [ "$(readlink "$OPT/bin" 2>/dev/null)" = current/bin ] ||
    ! change "link /opt/lineward/bin" || switch_to current/bin bin
}

switch_to() {
  ln -sfn "$1" "$OPT/.$2.new"
  mv -fT "$OPT/.$2.new" "$OPT/$2"
  sync "$OPT"
}

tell_systemd() {
  [ -z "$ROOT" ] && [ -d /run/systemd/system ] || return 0
  if [ "$CHANGES" != 0 ] && [ -z "$DRY" ]; then
    systemctl daemon-reload
    [ ! -e "/etc/udev/rules.d/90-lineward-$STATION.rules" ] ||
      { udevadm control --reload && udevadm trigger --subsystem-match=gpio; }
  fi
  systemctl --quiet is-enabled "lineward@$STATION" 2>/dev/null ||
    ! change "start lineward@$STATION with the device from now on" || systemctl --quiet enable "lineward@$STATION"
  [ "$FLEET" = no ] || systemctl --quiet is-enabled "lineward-pull@$STATION" 2>/dev/null ||
    ! change "start lineward-pull@$STATION with the device from now on" ||
    systemctl --quiet enable "lineward-pull@$STATION"
}

# What lies on the device now, which may be another bundle than the archive's, with the keys that the device trusts now.
verify_bundles() {
  local bundle keys
  keys=$(keys_of "$ROOT")
  while read -r bundle; do
    say "lineward verify $bundle"
    "$OPT/bin/lineward" verify ${keys:+--keys "$keys"} "$ROOT$bundle" || {
      [ -z "$BEFORE" ] || switch_to "$BEFORE" current
      fail "$bundle cannot be used on this device${BEFORE:+; the former runtime is active again}" "see above"
    }
  done < <(bundles_of)
}

# Staged, proven with this station's engine and deadline, and made active by one rename: by the runtime that was just
# switched to, into slots that the station's user owns. One that was deployed from an archive before is not deployed again,
# so that a rollback on this device, or a newer bundle, is not undone by running this once more.
deploy_bundles() {
  local entry job bundle line
  for entry in $SLOTS; do
    job=${entry%%=*} bundle=${entry#*=}
    line="$(sha256 "$HERE/slots/$bundle")  slots of job $job"
    ! grep -qxF "$line" "$RECORD" 2>/dev/null || continue
    if [ -n "$ROOT" ]; then
      cmp -s "$HERE/slots/$bundle" "$OPT/slots/$bundle" || ! change "lay $bundle into /opt/lineward/slots" ||
        place "$HERE/slots/$bundle" "$OPT/slots/$bundle"
      say "needed besides: lineward deploy /etc/lineward/$STATION.toml /opt/lineward/slots/$bundle --job $job, on the device"
      continue
    fi
    change "deploy $bundle to job $job" || continue
    install -d -m 755 -o lineward -g lineward "/var/lib/lineward/$STATION"
    # Laid where the station's user may read it, whatever the modes of the folder that the archive was unpacked into.
    install -d -m 755 "$OPT/slots"
    place "$HERE/slots/$bundle" "$OPT/slots/$bundle"
    (cd / && runuser -u lineward -- "$OPT/bin/lineward" deploy "/etc/lineward/$STATION.toml" "$OPT/slots/$bundle" \
      --job "$job") || {
      [ -z "$BEFORE" ] || switch_to "$BEFORE" current
      fail "$bundle is not deployed; what was active stays so${BEFORE:+, and the former runtime is active again}" "see above"
    }
    record "slots of job $job" "$line"
  done
}

# The former release stays: a station that is running reads from it until it is started anew.
drop_old_releases() {
  local old
  for old in "$OPT"/releases/*; do
    case releases/$(basename "$old") in
      "$(readlink "$OPT/current")" | "${BEFORE:-none}" | "$(cat "$OPT/former" 2>/dev/null || true)") ;;
      *) change "delete $old" && rm -rf "$old" ;;
    esac
  done
  [ -z "$BEFORE" ] || [ "$BEFORE" = "$(readlink "$OPT/current")" ] || echo "$BEFORE" >"$OPT/former"
}

finish() {
  sed 's/^- /install: needed besides: /' "$HERE/NEEDS.txt"
  [ "$KEPT" = 0 ] || say "$KEPT files changed on this device were kept"
  if [ "$CHANGES" = 0 ]; then
    say "nothing to change: everything was there already"
  else
    say "installed, $CHANGES changes. They take effect with: systemctl restart lineward@$STATION (when the line stands)"
  fi
}

main "$@"
