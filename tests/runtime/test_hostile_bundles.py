from __future__ import annotations

import io
import json
import pickle
import struct
import warnings
import zipfile

import cv2
import msgspec
import numpy as np
import pytest
from safetensors.numpy import save

from lineward.runtime.bundle import (
    BANK,
    BANK_TENSOR,
    EMBEDDING,
    MANIFEST,
    SIMILARITY,
    decode_bundle,
    encode_bundle,
    encode_tensor,
    read_bundle,
)
from lineward.runtime.errors import BundleError, ImageError, LinewardError
from lineward.runtime.images import decode_image
from lineward.runtime.inspection import Reason, Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Golden, encode_manifest

# ---- Making hostile bundles ----------------------------------------------------------------------------


def packed(bundle):
    return encode_bundle(bundle.manifest, bundle.members)


def entries(bundle):
    """The members of a bundle in order, as (name, bytes)."""
    with zipfile.ZipFile(io.BytesIO(packed(bundle))) as archive:
        return [(info.filename, archive.read(info)) for info in archive.infolist()]


def zipped(members, compression=zipfile.ZIP_STORED):
    buffer = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(buffer, "w", compression) as archive:
        warnings.simplefilter("ignore")  # zipfile warns of names that repeat
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, compression)
    return buffer.getvalue()


def with_manifest(bundle, **changes):
    """A bundle whose manifest has other top-level values, hashes of members left as they are."""
    members = dict(entries(bundle))
    document = json.loads(members[MANIFEST]) | changes
    return zipped({**members, MANIFEST: json.dumps(document).encode()}.items())


def with_entry(data, name, offset, layout, value):
    """A zip with a field of a member's entry in the central directory overwritten."""
    patched, start = bytearray(data), 0
    while True:
        start = data.index(b"PK\x01\x02", start)
        length = struct.unpack_from("<H", data, start + 28)[0]
        if data[start + 46 : start + 46 + length] == name.encode():
            struct.pack_into(layout, patched, start + offset, value)
            return bytes(patched)
        start += 4


def with_size(data, name, size):
    return with_entry(with_entry(data, name, 20, "<I", size), name, 24, "<I", size)


def overlapping(bundle):
    """Two members that each claim nearly the whole file."""
    data = packed(bundle)
    return with_size(with_size(data, BANK, len(data) - 1), EMBEDDING, len(data) - 1)


def in_front_of_the_directory(bundle):
    data = packed(bundle)
    start = data.index(b"PK\x01\x02")
    end = data[-22:-6] + struct.pack("<I", start + 4) + data[-2:]
    return data[:start] + b"evil" + data[start:-22] + end


class Unseekable(io.RawIOBase):
    """A pipe: zipfile writes sizes and checksums after each member."""

    def __init__(self):
        self.written = b""

    def writable(self):
        return True

    def write(self, data):
        self.written += data
        return len(data)


def streamed(bundle):
    pipe = Unseekable()
    with zipfile.ZipFile(pipe, "w") as archive:
        for name, data in entries(bundle):
            archive.writestr(zipfile.ZipInfo(name), data)
    return pipe.written


def with_golden(bundle, image, members=()):
    """A bundle, honestly hashed, with a golden image of any name."""
    golden = Golden(image, "golden/good.safetensors", "0" * 64, 0.5)
    manifest = msgspec.structs.replace(bundle.manifest, golden=(golden,))
    kept = {name: data for name, data in bundle.members.items() if not name.startswith("golden/")}
    kept["golden/good.safetensors"] = bundle.members["golden/good.safetensors"]
    return encode_bundle(manifest, kept | dict(members))


def with_bank(bundle, bank):
    return encode_bundle(bundle.manifest, {**bundle.members, BANK: bank})


def rows_of(bundle, value):
    bank = bundle.bank.copy()
    bank[5] = value
    return encode_tensor(BANK_TENSOR, bank)


HOSTILE = {
    "empty": (lambda _: b"", "not a bundle, or damaged"),
    "text": (lambda _: b"not a zip" * 100, "not a bundle, or damaged"),
    "zip-empty": (lambda _: zipped([]), "no manifest.json"),
    "zip-of-something-else": (lambda _: zipped([("readme.txt", b"hello")]), "no manifest.json"),
    "pickle": (
        lambda _: zipped([("archive/data.pkl", pickle.dumps({"a": 1})), ("archive/version", b"3\n")]),
        "a pickled model",
    ),
    "bare-pickle": (lambda _: pickle.dumps({"a": 1}), "not a bundle, or damaged"),
    "pickle-beside-the-manifest": (
        lambda b: encode_bundle(b.manifest, {**b.members, "data.pkl": pickle.dumps(1)}),
        "data.pkl does not belong in a bundle",
    ),
    "zip-slip": (
        lambda b: encode_bundle(b.manifest, {**b.members, "../evil.png": b"x"}),
        "../evil.png does not belong in a bundle",
    ),
    "zip-slip-golden": (
        lambda b: with_golden(b, "golden/../../evil.png", {"golden/../../evil.png": b"x"}),
        "golden/../../evil.png does not belong in a bundle",
    ),
    "zip-slip-unlisted": (lambda b: zipped([*entries(b), ("../evil", b"x")]), "../evil is not listed"),
    "absolute": (
        lambda b: with_golden(b, "/etc/cron.d/evil.png", {"/etc/cron.d/evil.png": b"x"}),
        "/etc/cron.d/evil.png does not belong in a bundle",
    ),
    "golden-of-another-kind": (
        lambda b: with_golden(b, "golden/run.sh", {"golden/run.sh": b"x"}),
        "golden/run.sh does not belong in a bundle",
    ),
    "golden-missing": (lambda b: with_golden(b, "golden/other.png"), "golden/other.png is missing"),
    "golden-in-no-folder": (lambda b: with_golden(b, "other.png", {"other.png": b"x"}), "does not belong"),
    "unlisted": (
        lambda b: zipped([*entries(b), ("extra.bin", b"x")]),
        "extra.bin is not listed in the manifest",
    ),
    "listed-but-missing": (
        lambda b: zipped([e for e in entries(b) if e[0] != SIMILARITY]),
        "similarity.onnx is listed in the manifest but missing",
    ),
    "no-bank": (
        lambda b: encode_bundle(b.manifest, {n: m for n, m in b.members.items() if n != BANK}),
        "bank.safetensors is missing",
    ),
    "no-manifest": (lambda b: zipped([e for e in entries(b) if e[0] != MANIFEST]), "no manifest.json"),
    "manifest-in-a-folder": (lambda b: zipped([("bundle/" + n, m) for n, m in entries(b)]), "no manifest.json"),
    "deflated": (lambda b: zipped(entries(b), zipfile.ZIP_DEFLATED), "is compressed or encrypted"),
    "zip-bomb": (
        lambda b: zipped([*entries(b), ("golden/bomb.png", b"\0" * (1 << 20))], zipfile.ZIP_BZIP2),
        "is compressed or encrypted",
    ),
    "unknown-compression": (lambda b: with_entry(packed(b), BANK, 10, "<H", 97), "is compressed or encrypted"),
    "encrypted": (lambda b: with_entry(packed(b), BANK, 8, "<H", 1), "bank.safetensors is compressed or encrypted"),
    "repeated-name": (lambda b: zipped([*entries(b), (BANK, b"x")]), "two members have the same name"),
    "repeated-manifest": (lambda b: zipped([*entries(b), (MANIFEST, b"{}")]), "two members have the same name"),
    "oversize-claim": (lambda b: with_size(packed(b), BANK, (1 << 32) - 2), "bank.safetensors claims more bytes"),
    "sizes-disagree": (lambda b: with_entry(packed(b), BANK, 24, "<I", 10), "bank.safetensors claims more bytes"),
    "overlap": (overlapping, "members overlap"),
    "one-inside-another": (lambda b: with_entry(packed(b), BANK, 42, "<I", 0), "something lies before bank"),
    "offset-beyond-the-end": (lambda b: with_entry(packed(b), BANK, 42, "<I", 1 << 30), "something lies before bank"),
    "one-before-another": (lambda b: packed(b) + packed(b), "something lies before manifest.json"),
    "something-in-front": (lambda b: b"#!/bin/sh\n" + packed(b), "something lies before manifest.json"),
    "something-before-the-directory": (in_front_of_the_directory, "something lies after the members"),
    "sizes-after-the-members": (streamed, "something lies before bank.safetensors"),
    "half-an-end-record-more": (lambda b: packed(b) + packed(b)[-22:-1], "it does not end as one"),
    "comment": (lambda b: packed(b)[:-2] + b"\x04\0evil", "it does not end as one"),
    "end-record-in-a-comment": (lambda b: packed(b)[:-2] + b"\x16\0" + packed(b)[-22:], "not a bundle, or damaged"),
    "end-record-of-zip64": (
        lambda b: packed(b)[:-22] + b"PK\x06\x07" + bytes(16) + packed(b)[-22:],
        "it does not end as one",
    ),
    "directory-too-large": (
        lambda b: zipped([*entries(b), *((f"golden/{n}.png", b"") for n in range(20_000))]),
        "its directory is larger than 1048576 bytes",
    ),
    "wrong-checksum": (lambda b: with_entry(packed(b), BANK, 16, "<I", 1), "not a bundle, or damaged"),
    "huge-manifest": (
        lambda b: zipped([(MANIFEST, b" " * ((1 << 20) + 1)), *entries(b)[1:]]),
        "manifest.json is larger than 1048576 bytes",
    ),
    "truncated-by-a-byte": (lambda b: packed(b)[:-1], "not a bundle, or damaged"),
    "truncated-by-half": (lambda b: packed(b)[: len(packed(b)) // 2], "not a bundle, or damaged"),
    "wrong-hash": (
        lambda b: zipped([(n, m[:-1] + b"\x55" if n == EMBEDDING else m) for n, m in entries(b)]),
        "embedding.onnx is not what was packed",
    ),
    "wrong-size": (
        lambda b: zipped([(n, m + b"\0" if n == EMBEDDING else m) for n, m in entries(b)]),
        "bytes, its manifest says",
    ),
    "swapped-members": (
        lambda b: zipped([({EMBEDDING: SIMILARITY, SIMILARITY: EMBEDDING}.get(n, n), m) for n, m in entries(b)]),
        "its manifest says",
    ),
    "empty-manifest": (lambda b: zipped([(MANIFEST, b""), *entries(b)[1:]]), "manifest.json is not valid"),
    "deep-json": (
        lambda b: zipped([(MANIFEST, b"[" * 500_000), *entries(b)[1:]]),
        "manifest.json is not valid",
    ),
    "nan-in-json": (
        lambda b: zipped([(n, m.replace(b'"tau": 3.0', b'"tau": NaN')) for n, m in entries(b)]),
        "manifest.json is not valid",
    ),
    "unknown-format": (lambda b: with_manifest(b, format=2), "bundle format 2 is not known here"),
    "no-format": (lambda b: with_manifest(b, format=None), "names no format"),
    "extra-field": (lambda b: with_manifest(b, plugin="evil.so"), "unknown field `plugin`"),
    "unknown-preprocessing": (
        lambda b: with_manifest(b, preprocessing={"width": 64, "height": 64, "resize": "bilinear/9"}),
        "preprocessing resize 'bilinear/9' is not known here",
    ),
    "huge-grid": (
        lambda b: with_manifest(b, grid={"rows": 1 << 24, "columns": 1 << 24, "dimensions": 15}),
        "manifest.json is not valid",
    ),
    "huge-input": (
        lambda b: with_manifest(b, preprocessing={"width": 1 << 20, "height": 1 << 20}),
        "is out of range",
    ),
    "bank-of-another-width": (
        lambda b: with_bank(b, encode_tensor(BANK_TENSOR, b.bank[:, :-1])),
        "bank should be float32 [64, 15], found float32 [64, 14]",
    ),
    "bank-of-fewer-rows": (
        lambda b: with_bank(b, encode_tensor(BANK_TENSOR, b.bank[:-1])),
        "bank should be float32 [64, 15], found float32 [63, 15]",
    ),
    "bank-flat": (lambda b: with_bank(b, encode_tensor(BANK_TENSOR, b.bank.ravel())), "found float32 [960]"),
    "bank-of-doubles": (lambda b: with_bank(b, save({BANK_TENSOR: b.bank.astype(np.float64)})), "found float64"),
    "bank-of-another-name": (lambda b: with_bank(b, encode_tensor("rows", b.bank)), "found nothing"),
    "bank-not-unit": (lambda b: with_bank(b, rows_of(b, 0.5)), "the rows of the bank are not of unit length"),
    "bank-zero": (lambda b: with_bank(b, rows_of(b, 0)), "the rows of the bank are not of unit length"),
    "bank-nan": (lambda b: with_bank(b, rows_of(b, np.nan)), "the rows of the bank are not of unit length"),
    "bank-infinite": (lambda b: with_bank(b, rows_of(b, np.inf)), "the rows of the bank are not of unit length"),
    "bank-overflowing": (lambda b: with_bank(b, rows_of(b, 3e38)), "the rows of the bank are not of unit length"),
    "bank-pickled": (lambda b: with_bank(b, pickle.dumps(b.bank)), "bank.safetensors: not a safetensors file"),
    "bank-empty": (lambda b: with_bank(b, b""), "bank.safetensors: not a safetensors file"),
    "bank-header-too-long": (
        lambda b: with_bank(b, struct.pack("<Q", 1 << 60) + b"{}"),
        "bank.safetensors: not a safetensors file",
    ),
    "bank-of-bfloat16": (
        lambda b: with_bank(b, b.members[BANK].replace(b'"F32"', b'"BF16"')),
        "bank.safetensors: not a safetensors file",
    ),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_bundle_is_refused_by_name(name, tiny, tmp_path, monkeypatch):
    make, what = HOSTILE[name]
    path = tmp_path / "outside" / "hostile.lineward"
    path.parent.mkdir()
    path.write_bytes(make(tiny))
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    with pytest.raises(BundleError) as caught:
        read_bundle(path)
    assert what in caught.value.what
    assert caught.value.what.startswith(f"{path}: ")
    assert caught.value.do
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [path]  # nothing was unpacked anywhere


# ---- Fuzzing -------------------------------------------------------------------------------------------
# Damage is drawn from a seed, so that each failure has a name and comes back.


def flip(random, data):
    damaged = bytearray(data)
    for _ in range(random.randint(1, 9)):
        damaged[random.randint(len(data))] ^= 1 << random.randint(8)
    return bytes(damaged)


def cut(random, data):
    return data[: random.randint(len(data))]


def splice(random, data):
    """Copy a stretch of the data over another place in it."""
    length = random.randint(1, max(2, len(data) // 4))
    start, to = random.randint(len(data), size=2)
    return data[:to] + data[start : start + length] + data[to + length :]


def insert(random, data):
    at = random.randint(len(data))
    return data[:at] + random.bytes(random.randint(1, 40)) + data[at:]


def drop(random, data):
    start = random.randint(len(data))
    return data[:start] + data[start + random.randint(1, 40) :]


def blank(random, data):
    start, length = random.randint(len(data)), random.randint(1, 200)
    return (data[:start] + b"\0" * length)[: len(data)] + data[start + length :]


def saturate(random, data):
    """Overwrite four bytes by all ones: lengths become huge, floats NaN."""
    start = random.randint(len(data))
    return data[:start] + b"\xff" * 4 + data[start + 4 :]


DAMAGES = (flip, cut, splice, insert, drop, blank, saturate)


def inspect_with(data, frame):
    """Outcome of reading a bundle and inspecting with it: its inspection, or the LinewardError."""
    try:
        return Inspector(decode_bundle(data, "damaged.lineward")).inspect(frame)
    except LinewardError as error:
        return error


def assert_fails_closed(outcome):
    if isinstance(outcome, LinewardError):
        assert outcome.what
        assert outcome.do
        return
    assert outcome.anomaly_map.dtype == np.float32
    passes = np.isfinite(outcome.score) and outcome.score <= outcome.threshold
    assert outcome.verdict == (Verdict.PASS if passes else Verdict.REJECT)
    assert np.isfinite(outcome.score) or outcome.reason == Reason.SCORE_INVALID


@pytest.fixture(scope="module")
def frame(golden_frames):
    return golden_frames[0]


@pytest.fixture(scope="module")
def whole(tiny, frame):
    return Inspector(tiny).inspect(frame)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damage_to_the_file_is_an_error_or_does_not_matter(damage, seed, tiny_bytes, frame, whole):
    outcome = inspect_with(damage(np.random.RandomState(seed), tiny_bytes), frame)
    if not isinstance(outcome, LinewardError):
        np.testing.assert_array_equal(outcome.anomaly_map, whole.anomaly_map)
        assert (outcome.verdict, outcome.score, outcome.threshold) == (whole.verdict, whole.score, whole.threshold)


@pytest.mark.parametrize("seed", range(25))
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("member", [EMBEDDING, SIMILARITY, BANK])
def test_damage_behind_good_hashes_is_an_error_or_a_verdict(member, damage, seed, tiny, rebundle, frame):
    damaged = damage(np.random.RandomState(seed), tiny.members[member])
    assert_fails_closed(inspect_with(rebundle({member: damaged}), frame))


@pytest.mark.parametrize("first", [EMBEDDING, SIMILARITY, BANK, "golden/good.png", "golden/good.safetensors"])
@pytest.mark.parametrize("second", [EMBEDDING, SIMILARITY, BANK])
def test_members_in_each_others_place_are_an_error(first, second, tiny, rebundle, frame):
    swapped = {first: tiny.members[second], second: tiny.members[first]}
    outcome = inspect_with(rebundle(swapped), frame)
    assert isinstance(outcome, LinewardError) == (first != second)


VALUES = (None, True, -1, 0, 1, 7, 63, 65, 2048, 1 << 24, 1 << 31, 1 << 70, 1e-300, 0.5, 2.0, 1e300, "", "x", [], {})


@pytest.mark.parametrize("seed", range(150))
def test_a_manifest_with_another_value_is_an_error_or_a_verdict(seed, tiny, frame):
    random = np.random.RandomState(seed)
    document = json.loads(encode_manifest(tiny.manifest))
    inner = document
    while True:
        key = sorted(inner)[random.randint(len(inner))] if isinstance(inner, dict) else random.randint(len(inner))
        if not (isinstance(inner[key], (dict, list)) and inner[key] and random.randint(4)):
            break
        inner = inner[key]
    inner[key] = VALUES[random.randint(len(VALUES))]
    members = {**dict(entries(tiny)), MANIFEST: json.dumps(document).encode()}
    assert_fails_closed(inspect_with(zipped(members.items()), frame))


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".tiff", ".webp"])
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_a_damaged_image_is_an_error_or_a_verdict(damage, suffix, seed, tiny, frame):
    data = cv2.imencode(suffix, np.ascontiguousarray(frame[:, :, ::-1]))[1].tobytes()
    try:
        outcome = Inspector(tiny).inspect(decode_image(damage(np.random.RandomState(seed), data), "damaged"))
    except ImageError as error:
        outcome = error
    assert_fails_closed(outcome)
