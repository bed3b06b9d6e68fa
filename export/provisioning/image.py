"""One archive for one station: runtime and wheelhouse, station file, bundles, keys, unit, installer, inventory."""

from __future__ import annotations

import gzip
import hashlib
import re
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from io import BytesIO
from pathlib import Path, PurePosixPath

import msgspec
from packaging.requirements import Requirement

from lineward.export.provisioning.inventory import write_licences, write_sbom
from lineward.export.provisioning.permissions import read_permissions
from lineward.export.provisioning.runtime_wheel import make_runtime_wheel
from lineward.export.provisioning.target import Target
from lineward.export.provisioning.wheelhouse import NO_LOCK, Lock, gather, write_lock
from lineward.export.provisioning.wheels import Wheel, read_wheel
from lineward.export.signing import SigningKey
from lineward.runtime.atomic_write import replace_file
from lineward.runtime.bundle import read_bundle
from lineward.runtime.delivery.slots import BUNDLE_SUFFIX
from lineward.runtime.errors import ProvisioningError
from lineward.runtime.station.configuration import Configuration, GenicamCamera, OpcuaServer, read_configuration
from lineward.runtime.trust import REVOKED, AcceptAny, open_trust

ETC = PurePosixPath("/etc/lineward")
STATE = PurePosixPath("/var/lib/lineward")
_MOMENT = 315532800  # 1980-01-01: the earliest that every archiver can tell


@dataclass(frozen=True)
class Station:
    """What is particular to one station.

    Attributes:
        file: the station file.
        bundles: one for each of its [jobs]: "part.lineward" for a job that names a file part.lineward, or a folder of
            slots called part.
        keys: folder of trusted public keys; None: the device accepts any bundle.
    """

    file: Path
    bundles: Sequence[Path]
    keys: Path | None


@dataclass(frozen=True)
class Image:
    """An archive that was written.

    Attributes:
        sha256: of the file, in hexadecimal.
        size: bytes.
        wheels: what is installed from it.
        needs: what the device must have besides, in words.
    """

    sha256: str
    size: int
    wheels: Sequence[Wheel]
    needs: Sequence[str]


def write_image(
    output: Path,
    target: Target,
    station: Station,
    *,
    wheel: Path | None = None,
    added: Sequence[Path] = (),
    wheelhouse: Path | None = None,
    lock: Lock = NO_LOCK,
    key: SigningKey | None = None,
) -> Image:
    """Write the archive; the same inputs give the same bytes.

    Args:
        output: the file, replaced at once when it is complete.
        target: the device's system.
        station: the station.
        wheel: Lineward's own; None: made of what runs here.
        added: more wheels to install, such as a PyCUDA built on such a device.
        wheelhouse: folder of wheels to choose from; None: pip fetches them.
        lock: what may be chosen.
        key: signs the archive's list of hashes (Ed25519, over the file as it is); None: nobody does.

    Raises:
        ProvisioningError: something does not fit, is missing, or cannot be fetched or written.
        StationError, BundleError, KeyFileError: of what the station consists of.
    """
    configuration = read_configuration(station.file)
    needs = _needs(configuration, target, station, added)
    with tempfile.TemporaryDirectory(prefix="lineward-image-") as scratch:
        files = _station_files(configuration, station)
        wheels = _wheels(configuration, target, wheel, added, wheelhouse, lock, Path(scratch))
        locked = write_lock(wheels)
        files |= {f"wheelhouse/{w.path.name}": w.path.read_bytes() for w in wheels}
        files["requirements.lock"] = locked.encode()
        files["sbom.cdx.json"] = write_sbom(wheels, target, locked).encode()
        files["LICENCES.txt"] = write_licences(wheels).encode()
        files["NEEDS.txt"] = "".join(f"- {need}\n" for need in needs).encode()
        files["image"] = _facts(configuration, target, station).encode()
        files["install.sh"] = _resource("install.sh")
    data = _pack(files, f"lineward-{configuration.name}", key)
    _write(output, data)
    return Image(hashlib.sha256(data).hexdigest(), len(data), wheels, needs)


def _station_files(configuration: Configuration, station: Station) -> dict[str, bytes]:
    """Files under `device/`, which lie on the device where their names say, and bundles to deploy under `slots/`."""
    raw = msgspec.toml.decode(station.file.read_bytes())
    name = configuration.name
    if raw["folder"] != str(STATE / name):
        raise ProvisioningError(
            f'{station.file}: folder = "{raw["folder"]}" is not where the service of station {name} may write',
            do=f'write folder = "{STATE / name}"',
        )
    permissions = read_permissions(configuration)
    files = {
        ETC / f"{name}.toml": station.file.read_bytes(),
        PurePosixPath("/etc/systemd/system/lineward@.service"): _resource("lineward@.service"),
        PurePosixPath(f"/etc/systemd/system/lineward@{name}.service.d/device.conf"): permissions.drop_in(name).encode(),
    }
    if rules := permissions.udev_rules():
        files[PurePosixPath(f"/etc/udev/rules.d/90-lineward-{name}.rules")] = rules.encode()
    files |= _keys(station, raw.get("keys"))
    files |= _fleet(configuration, station, raw.get("fleet"), permissions.drop_in(name))
    bundles = _bundles(station, raw["jobs"])
    files |= {place: data for place, data in bundles.items() if place.suffix == BUNDLE_SUFFIX}
    slots = {place: data for place, data in bundles.items() if place.suffix != BUNDLE_SUFFIX}
    for place in slots:
        _check_slots(place, STATE / name, station.file)
    return {f"device{path}": data for path, data in files.items()} | {
        f"slots/{_bundle_name(place)}": data for place, data in slots.items()
    }


def _bundles(station: Station, jobs: Mapping[str, str]) -> dict[PurePosixPath, bytes]:
    """The bundle of each place that a job names: a file, or a folder of slots."""
    trust = open_trust(station.keys) if station.keys else AcceptAny()
    given = {path.name: path for path in station.bundles}
    places = {_place(place, station.file) for place in jobs.values()}
    if len(given) != len(station.bundles) or {_bundle_name(place) for place in places} != given.keys():
        raise ProvisioningError(
            f"{station.file}: [jobs] name {', '.join(sorted(_bundle_name(place) for place in places))}, "
            f"and the bundles given are {', '.join(sorted(path.name for path in station.bundles))}",
            do="give --bundle once for each bundle of the station file, under the same file name",
        )
    for path in given.values():
        read_bundle(path, trust)
    return {place: given[_bundle_name(place)].read_bytes() for place in places}


def _bundle_name(place: PurePosixPath) -> str:
    return place.name if place.suffix == BUNDLE_SUFFIX else place.name + BUNDLE_SUFFIX


def _check_slots(place: PurePosixPath, state: PurePosixPath, where: Path) -> None:
    """Slots lie where the service may write, and their name can stand in a shell's word."""
    if not place.is_relative_to(state) or place == state or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", place.name):
        raise ProvisioningError(
            f"{where}: {str(place)!r} is no folder of slots below {state}, which the service may write",
            do=f'name it as "{state}/slots/part", of letters, digits, dots and dashes',
        )


def _keys(station: Station, named: str | None) -> dict[PurePosixPath, bytes]:
    if station.keys is None:
        return {}
    folder = _place(named, station.file) if named else ETC / "keys"
    public = [path for path in station.keys.iterdir() if path.suffix == ".pub" or path.name == REVOKED]
    return {folder / path.name: path.read_bytes() for path in public if not path.name.startswith(".")}


def _fleet(
    configuration: Configuration, station: Station, table: Mapping[str, str] | None, drop_in: str
) -> dict[PurePosixPath, bytes]:
    """What pulls bundles, and the root that it begins to trust with: a file beside the station file."""
    if table is None:
        return {}
    place = _place(table["root"], station.file)
    root = station.file.parent / place.name
    again = "put 1.root.json of `lineward publish init` there, under the name that [fleet] has for it"
    try:
        data = root.read_bytes()
        kind = msgspec.json.decode(data, type=_Root).signed.type
    except OSError as error:
        raise ProvisioningError(f"{root}: cannot be read ({error.strerror})", do=again) from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ProvisioningError(f"{root}: not the root of a repository ({error})", do=again) from error
    if kind != "root":
        raise ProvisioningError(f"{root}: the {kind} list of a repository, not its root", do=again)
    units = PurePosixPath("/etc/systemd/system")
    return {
        place: data,
        units / "lineward-pull@.service": _resource("lineward-pull@.service"),
        units / f"lineward-pull@{configuration.name}.service.d/device.conf": drop_in.encode(),
    }


class _Signed(msgspec.Struct, rename={"type": "_type"}):
    type: str


class _Root(msgspec.Struct):
    """As much of root metadata as tells that it is some."""

    signed: _Signed


def _place(text: str, where: Path) -> PurePosixPath:
    """Where a file of the station lies on the device; the station file is in /etc/lineward there."""
    place = ETC / text
    if ".." in place.parts or not (place.is_relative_to(ETC) or place.is_relative_to(STATE)):
        raise ProvisioningError(
            f"{where}: {text!r} lies outside {ETC} and {STATE} on the device", do="write a path below one of them"
        )
    return place


def _wheels(
    configuration: Configuration,
    target: Target,
    wheel: Path | None,
    added: Sequence[Path],
    wheelhouse: Path | None,
    lock: Lock,
    scratch: Path,
) -> list[Wheel]:
    made, fetched = scratch / "made", scratch / "fetched"
    made.mkdir()
    fetched.mkdir()
    own = read_wheel(wheel or make_runtime_wheel(made))
    if own.name != "lineward":
        raise ProvisioningError(f"{own.path}: the wheel of {own.name}, not of lineward", do="name lineward's wheel")
    more = [read_wheel(path) for path in added]
    for other in more:
        if not other.runs_on(target):
            raise ProvisioningError(f"{other.path}: does not run on {target.name}", do="build it on such a device")
    house = [read_wheel(path) for path in sorted(wheelhouse.glob("*.whl"))] if wheelhouse else []
    # The device's own pip may be missing (Debian splits it off), so one goes along.
    extras = "opcua" if isinstance(configuration.plc, OpcuaServer) else "station"
    if configuration.fleet is not None:
        extras += ",fleet"
    roots = [Requirement(f"lineward[{extras}]=={own.version}"), Requirement("pip")]
    roots += [Requirement(f"{other.name}=={other.version}") for other in more]
    given = [own, *more, *(other for other in house if other.name != "lineward")]
    return gather(roots, given, target, lock, None if wheelhouse else fetched)


def _needs(c: Configuration, target: Target, station: Station, added: Sequence[Path]) -> list[str]:
    """What the archive cannot bring."""
    needs = [
        f"Linux {target.machine}, Python {target.python_version}, glibc {'.'.join(map(str, target.glibc))} or newer"
    ]
    if isinstance(c.camera, GenicamCamera):
        needs.append("cameras through Aravis: apt-get install python3-gi gir1.2-aravis-0.8")
    if c.engine.name == "tensorrt":
        needs.append("TensorRT: apt-get install python3-libnvinfer (of JetPack)")
        if not any(path.name.startswith("pycuda-") for path in added):
            needs.append("PyCUDA, of which there is no wheel: build one on such a device and name it with --add")
    if c.engine.name not in ("cpu", "tensorrt"):
        needs.append(f'onnxruntime-gpu, for engine "{c.engine.name}": this archive brings onnxruntime for the CPU')
    for name, path in (("password_file", c.mqtt and c.mqtt.password_file), ("ca_file", c.mqtt and c.mqtt.ca_file)):
        if path:
            needs.append(f"mqtt.{name} of the station file, put there by hand: no secret is packed")
    if station.keys is None:
        needs.append("PUBLIC KEYS: none are packed, and a device without accepts ANY bundle (docs/signing.md)")
    return needs


def _facts(configuration: Configuration, target: Target, station: Station) -> str:
    """What install.sh asks the device about, as variables of the shell."""
    jobs: Mapping[str, str] = msgspec.toml.decode(station.file.read_bytes())["jobs"]
    slots = {number: PurePosixPath(place) for number, place in jobs.items() if not place.endswith(BUNDLE_SUFFIX)}
    groups = " ".join(read_permissions(configuration).groups)
    # Aravis' and TensorRT's bindings are packages of the system.
    system = target.jetson or isinstance(configuration.camera, GenicamCamera)
    facts = {
        "STATION": configuration.name,
        "TARGET": target.name,
        "MACHINE": target.machine,
        "PYTHON_VERSION": target.python_version,
        "GLIBC_MINOR": str(target.glibc[1]),
        "SYSTEM_PACKAGES": "yes" if system else "no",
        "GROUPS_NEEDED": groups,
        "FLEET": "no" if configuration.fleet is None else "yes",
        "SLOTS": " ".join(f"{int(number)}={_bundle_name(place)}" for number, place in sorted(slots.items())),
    }
    return "".join(f"{name}='{value}'\n" for name, value in facts.items())


def _pack(files: Mapping[str, bytes], top: str, key: SigningKey | None) -> bytes:
    sums = "".join(f"{hashlib.sha256(data).hexdigest()}  {name}\n" for name, data in sorted(files.items())).encode()
    files = {**files, "SHA256SUMS": sums}
    if key is not None:  # no bundle or permit can be mistaken for it: what is signed there begins with "lineward"
        files["SHA256SUMS.sig"] = key.private.sign(sums)
    packed = BytesIO()
    # Wheels are compressed already: more than the least effort gains nothing.
    with (
        gzip.GzipFile("", "wb", 1, packed, mtime=0) as stream,
        tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive,
    ):
        for name, data in sorted(files.items()):
            entry = tarfile.TarInfo(f"{top}/{name}")
            entry.size, entry.mtime = len(data), _MOMENT
            entry.mode = 0o755 if name == "install.sh" else 0o644
            archive.addfile(entry, BytesIO(data))
    return packed.getvalue()


def _write(output: Path, data: bytes) -> None:
    try:
        replace_file(output, data)
    except OSError as error:
        raise ProvisioningError(
            f"{output}: cannot be written ({error.strerror})", do="check the folder and its space"
        ) from error


def _resource(name: str) -> bytes:
    return resources.files("lineward.export.provisioning").joinpath(name).read_bytes()
