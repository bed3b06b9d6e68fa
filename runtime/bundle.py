"""The bundle (`*.lineward`): one file that holds all that decides a verdict, and can be checked.

A zip of stored members, no pickle anywhere: `manifest.json`, `embedding.onnx`, `similarity.onnx`,
`bank.safetensors`, the golden images and results under `golden/`, `region.png` where not all of the image counts, and
`manifest.sig` once it is signed. It is read into memory and never unpacked.
"""

from __future__ import annotations

import hashlib
import io
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from lineward.runtime.atomic_write import replace_file
from lineward.runtime.errors import BundleError
from lineward.runtime.manifest import Manifest, Member, decode_manifest, encode_manifest
from lineward.runtime.region import Region, decode_region
from lineward.runtime.signature import SIGNATURES_LIMIT, Signature, decode_signatures, encode_signatures
from lineward.runtime.trust import AcceptAny, Trust, TrustedKeys, open_trust
from lineward.runtime.view import View

MANIFEST = "manifest.json"
SIGNATURE = "manifest.sig"
EMBEDDING = "embedding.onnx"
SIMILARITY = "similarity.onnx"
BANK = "bank.safetensors"
REGION = "region.png"
BANK_TENSOR = "bank"
GOLDEN_TENSOR = "scores"

_LIMITS = {MANIFEST: 1 << 20, SIGNATURE: SIGNATURES_LIMIT, REGION: 1 << 24}
_BUNDLE_LIMIT = 1 << 31
_DIRECTORY_LIMIT = 1 << 20
_LOCAL_HEADER = 30
_END, _END_OF_ZIP64 = b"PK\x05\x06", b"PK\x06\x07"
_REBUILD = "take the bundle again from where it was made"
_LOG = logging.getLogger("lineward")


@dataclass(frozen=True)
class Bundle:
    """A bundle in memory, every member checked against the manifest.

    Attributes:
        manifest: what it says about itself.
        members: the bytes of every member but the manifest and its signatures.
        bank: unit rows, float32 [rows, dimensions], not to be written to.
        sha256: SHA-256 of the manifest's bytes; it names the bundle, since the manifest holds every member's hash.
        signatures: what signatures it carries. That it was read with trusted keys says that one of them counts.
        region: which pixels of the anomaly map count; None: all.
    """

    manifest: Manifest
    members: Mapping[str, bytes]
    bank: NDArray[np.float32]
    sha256: str
    signatures: tuple[Signature, ...] = ()
    region: Region | None = None

    @cached_property
    def view(self) -> View:
        """What it looks at."""
        m = self.manifest
        return View(m.preprocessing, m.grid, m.score, self.region, m.tiles)

    def golden_scores(self, name: str) -> NDArray[np.float32]:
        """Patch scores stored under a member's name, float32 [rows, columns].

        Raises:
            BundleError: they are missing, or of another shape or type.
        """
        return _tensor(self.members.get(name, b""), GOLDEN_TENSOR, (self.view.rows, self.view.columns), name)


def read_bundle(path: str | Path, trust: Trust | None = None) -> Bundle:
    """Read a bundle and check its signatures, format, sizes, hashes and shapes.

    Args:
        path: the file.
        trust: whose bundles to accept; by default whose this machine does (see `open_trust`), with a warning in the log
            where it has no keys.

    Raises:
        BundleError: it is missing, truncated, altered, of an unknown format, or holds what a bundle must not hold.
        SignatureError: no signature on it counts, or they are malformed.
        KeyFileError: this machine's keys cannot be relied upon.
    """
    if trust is None:
        trust = open_trust()
        if isinstance(trust, AcceptAny):
            _LOG.warning("%s: accepted whoever made it, since this machine has no trusted keys", path)
    return _decode(read_bundle_file(path), str(path), trust)


def decode_bundle(data: bytes, where: str) -> Bundle:
    """Decode a bundle made in this process: checked as `read_bundle` does, but for who signed it.

    Args:
        data: the file's bytes. What came from elsewhere goes through `read_bundle`.
        where: names it in errors.
    """
    return _decode(data, where, AcceptAny())


def _decode(data: bytes, where: str, trust: Trust) -> Bundle:
    members = _read_members(data, where)
    manifest_bytes = members.pop(MANIFEST)
    sha256 = hashlib.sha256(manifest_bytes).hexdigest()
    signed = members.pop(SIGNATURE, None)
    signatures = () if signed is None else decode_signatures(signed, where)
    manifest = decode_manifest(manifest_bytes, where)
    if isinstance(trust, TrustedKeys):
        # Before the members are looked into: a graph or bank of nobody's is not even parsed.
        trust.check(signatures, sha256, manifest.product, where)
    _check_members(members, manifest, where)
    bank = _bank(members[BANK], (manifest.rows, manifest.grid.dimensions), f"{where}: {BANK}")
    _check_unit_rows(bank, where)
    region = None
    if REGION in members:
        score = manifest.score
        region = decode_region(members[REGION], score.map_height, score.map_width, f"{where}: {REGION}")
    return Bundle(manifest, members, bank, sha256, signatures, region)


def read_bundle_file(path: str | Path) -> bytes:
    """The bytes of a bundle's file, none of them checked.

    Raises:
        BundleError: it is missing, cannot be read, or is too large.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        if size > _BUNDLE_LIMIT:
            raise BundleError(f"{path}: {size} bytes, more than a bundle may have", do=_REBUILD)
        return path.read_bytes()
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be read ({error.strerror})", do="check the path; `lineward train` makes a bundle"
        ) from error


def encode_bundle(manifest: Manifest, members: Mapping[str, bytes]) -> bytes:
    """Encode a bundle: the same members and manifest give the same bytes.

    Args:
        manifest: everything but `members`, which is filled in here.
        members: every file of the bundle but the manifest.
    """
    listed = {name: Member(hashlib.sha256(data).hexdigest(), len(data)) for name, data in sorted(members.items())}
    manifest = msgspec.structs.replace(manifest, members=listed)
    return _encode_members({MANIFEST: encode_manifest(manifest), **members})


def replace_signatures(data: bytes, signatures: tuple[Signature, ...], where: str) -> bytes:
    """The bytes of a bundle with other signatures, every other member as it was; `where` names it in errors."""
    return _encode_members({**_read_members(data, where), SIGNATURE: encode_signatures(signatures)})


def write_bundle(path: str | Path, data: bytes) -> None:
    """Write a bundle so that its path holds either what it held before or all of the new bytes.

    Raises:
        BundleError: the folder is missing, full or not writable.
    """
    try:
        replace_file(Path(path), data)
    except OSError as error:
        raise BundleError(
            f"{path}: cannot be written ({error.strerror})", do="check the folder and its free space"
        ) from error


def encode_tensor(name: str, tensor: NDArray[np.float32]) -> bytes:
    """One float32 array as safetensors."""
    return save({name: np.ascontiguousarray(tensor)})


def _encode_members(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members, key=lambda name: (name != MANIFEST, name)):
            info = zipfile.ZipInfo(name, date_time=(1980, 1, 1, 0, 0, 0))
            info.external_attr = 0o644 << 16
            archive.writestr(info, members[name])
    return buffer.getvalue()


def _read_members(data: bytes, where: str) -> dict[str, bytes]:
    _check_end(data, where)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            infos = archive.infolist()
            _check_archive(infos, len(data), where)
            _check_no_gap(infos, archive.start_dir, where)
            return {info.filename: archive.read(info) for info in infos}
    except BundleError:
        raise
    # A hostile zip can make zipfile raise almost anything, NotImplementedError and struct.error among it.
    except Exception as error:
        raise BundleError(f"{where}: not a bundle, or damaged ({error})", do=_REBUILD) from error


def _check_end(data: bytes, where: str) -> None:
    """Before zipfile makes an object of each entry of a directory that could fill the whole file."""
    end = data[-22:]
    if not end.startswith(_END) or end[20:] != b"\0\0" or data[-42:-38] == _END_OF_ZIP64:
        raise BundleError(f"{where}: not a bundle, or damaged (it does not end as one)", do=_REBUILD)
    if int.from_bytes(end[12:16], "little") > _DIRECTORY_LIMIT:
        raise BundleError(f"{where}: its directory is larger than {_DIRECTORY_LIMIT} bytes", do=_REBUILD)


def _check_archive(infos: list[zipfile.ZipInfo], size: int, where: str) -> None:
    names = [info.filename for info in infos]
    if MANIFEST not in names:
        held = "a pickled model" if any(n.endswith((".pkl", ".pickle")) for n in names) else "no manifest.json"
        raise BundleError(f"{where}: not a bundle (it holds {held})", do=_REBUILD)
    if len(set(names)) != len(names):
        raise BundleError(f"{where}: two members have the same name", do=_REBUILD)
    for info in infos:
        if info.compress_type != zipfile.ZIP_STORED or info.flag_bits & 0x1:
            raise BundleError(f"{where}: {info.filename} is compressed or encrypted", do=_REBUILD)
        if info.file_size > size or info.file_size != info.compress_size:
            raise BundleError(f"{where}: {info.filename} claims more bytes than the file has", do=_REBUILD)
        limit = _LIMITS.get(info.filename)
        if limit is not None and info.file_size > limit:
            raise BundleError(f"{where}: {info.filename} is larger than {limit} bytes", do=_REBUILD)
    if sum(info.file_size for info in infos) > size:
        raise BundleError(f"{where}: members overlap", do=_REBUILD)


def _check_no_gap(infos: list[zipfile.ZipInfo], directory: int, where: str) -> None:
    """Member after member from the first byte on: what lies between could be another bundle to another reader."""
    at = 0
    for info in infos:
        if info.header_offset != at:
            raise BundleError(f"{where}: something lies before {info.filename} that is no member", do=_REBUILD)
        at += _LOCAL_HEADER + len(info.filename.encode()) + info.file_size
    if directory != at:
        raise BundleError(f"{where}: something lies after the members that is no member", do=_REBUILD)


def _check_members(members: Mapping[str, bytes], manifest: Manifest, where: str) -> None:
    golden = {name for g in manifest.golden for name in (g.image, g.scores)}
    allowed = {EMBEDDING, SIMILARITY, BANK, REGION} | {name for name in golden if _is_golden_name(name)}
    _refuse(members.keys() - manifest.members.keys(), where, "is not listed in the manifest")
    _refuse(manifest.members.keys() - members.keys(), where, "is listed in the manifest but missing")
    _refuse(members.keys() - allowed, where, "does not belong in a bundle")
    _refuse(({EMBEDDING, SIMILARITY, BANK} | golden) - members.keys(), where, "is missing")
    for name, member in manifest.members.items():
        if len(members[name]) != member.size:
            raise BundleError(
                f"{where}: {name} has {len(members[name])} bytes, its manifest says {member.size}",
                do=_REBUILD,
            )
        if hashlib.sha256(members[name]).hexdigest() != member.sha256:
            raise BundleError(f"{where}: {name} is not what was packed (its SHA-256 differs)", do=_REBUILD)


def _is_golden_name(name: str) -> bool:
    folder, _, rest = name.partition("/")
    return folder == "golden" and "/" not in rest and rest.endswith((".png", ".safetensors"))


def _refuse(names: set[str], where: str, why: str) -> None:
    if names:
        raise BundleError(f"{where}: {', '.join(sorted(names))} {why}", do=_REBUILD)


def _tensor(data: bytes, key: str, shape: tuple[int, ...], where: str) -> NDArray[np.float32]:
    try:
        tensors: dict[str, Any] = load(data)
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{where}: not a safetensors file ({error})", do=_REBUILD) from error
    tensor = tensors.get(key)
    if tensor is None or tensor.dtype != np.float32 or tensor.shape != shape:
        found = "nothing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
        raise BundleError(f"{where}: {key} should be float32 {list(shape)}, found {found}", do=_REBUILD)
    return tensor  # type: ignore[no-any-return]


def _bank(data: bytes, shape: tuple[int, int], where: str) -> NDArray[np.float32]:
    """The rows of the bank, where they lie in the member's bytes if they can be read there: so they are held once."""
    copy = _tensor(data, BANK_TENSOR, shape, where)
    rows = np.frombuffer(data, np.float32, offset=len(data) - copy.nbytes).reshape(shape)
    return rows if rows.flags.aligned and np.array_equal(rows, copy) else copy


def _check_unit_rows(bank: NDArray[np.float32], where: str) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        norms = np.linalg.norm(bank, axis=1)
    if not np.all(np.abs(norms - 1) < 1e-3):  # false for NaN too
        raise BundleError(f"{where}: the rows of the bank are not of unit length", do=_REBUILD)
