from __future__ import annotations

import errno
import hashlib
import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from lineward.runtime.bundle import (
    BANK,
    BANK_TENSOR,
    EMBEDDING,
    MANIFEST,
    SIGNATURE,
    SIMILARITY,
    decode_bundle,
    encode_bundle,
    encode_tensor,
    read_bundle,
    replace_signatures,
    write_bundle,
)
from lineward.runtime.errors import BundleError
from lineward.runtime.manifest import encode_manifest
from tests.signers import Signer


def snapshot(folder):
    """Every file below a folder, with its bytes."""
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_round_trip(tiny):
    again = decode_bundle(encode_bundle(tiny.manifest, tiny.members), "again")
    assert again.manifest == tiny.manifest
    assert again.members == tiny.members
    assert again.sha256 == tiny.sha256
    np.testing.assert_array_equal(again.bank, tiny.bank)


def test_same_members_give_the_same_bytes_in_any_order(tiny, tiny_bytes):
    turned = dict(reversed(tiny.members.items()))
    assert encode_bundle(tiny.manifest, tiny.members) == tiny_bytes
    assert encode_bundle(tiny.manifest, turned) == tiny_bytes


def test_what_is_read(tiny, tiny_path):
    bundle = read_bundle(tiny_path)
    assert set(bundle.members) == {EMBEDDING, SIMILARITY, BANK} | {
        f"golden/{name}" for name in ("good.png", "good.safetensors", "defect.png", "defect.safetensors")
    }
    assert bundle.bank.shape == (bundle.manifest.rows, bundle.manifest.grid.dimensions)
    assert bundle.bank.dtype == np.float32
    np.testing.assert_array_equal(bundle.bank, load(bundle.members[BANK])[BANK_TENSOR])
    np.testing.assert_allclose(np.linalg.norm(bundle.bank, axis=1), 1, atol=1e-5)
    assert bundle.sha256 == hashlib.sha256(encode_manifest(bundle.manifest)).hexdigest() == tiny.sha256


def test_the_bank_is_held_once(tiny):
    assert np.shares_memory(tiny.bank, np.frombuffer(tiny.members[BANK], np.uint8))
    assert not tiny.bank.flags.writeable


@pytest.mark.parametrize("before", [b"", b" ", b"    "])
def test_a_bank_that_another_program_wrote_is_read_wherever_it_lies(tiny, rebundle, before: bytes):
    member = tiny.members[BANK]
    length = int.from_bytes(member[:8], "little")
    header, rows = member[8 : 8 + length].rstrip() + before, member[8 + length :]
    moved = decode_bundle(rebundle({BANK: len(header).to_bytes(8, "little") + header + rows}), "moved.lineward")
    np.testing.assert_array_equal(moved.bank, tiny.bank)


def test_the_name_of_a_bundle_changes_with_any_member(tiny, rebundle):
    other = decode_bundle(rebundle({EMBEDDING: tiny.members[EMBEDDING] + b"\0"}), "other")
    assert other.sha256 != tiny.sha256


def test_a_signature_is_no_member_and_changes_none(tiny, tiny_bytes):
    signatures = (Signer("maker").sign(tiny.sha256),)
    signed = replace_signatures(tiny_bytes, signatures, "tiny")
    bundle = decode_bundle(signed, "signed.lineward")
    assert (bundle.members, bundle.sha256, bundle.signatures) == (tiny.members, tiny.sha256, signatures)
    with zipfile.ZipFile(io.BytesIO(tiny_bytes)) as before, zipfile.ZipFile(io.BytesIO(signed)) as after:
        assert after.namelist()[0] == MANIFEST
        assert set(after.namelist()) == {SIGNATURE, *before.namelist()}
        assert all(before.read(name) == after.read(name) for name in before.namelist())


def test_golden_scores(tiny):
    for golden in tiny.manifest.golden:
        scores = tiny.golden_scores(golden.scores)
        assert scores.shape == (8, 8)
        assert scores.dtype == np.float32


@pytest.mark.parametrize("name", ["golden/missing.safetensors", EMBEDDING, BANK, "golden/good.png"])
def test_golden_scores_of_something_else(name, tiny):
    with pytest.raises(BundleError, match=name):
        tiny.golden_scores(name)


def test_golden_scores_of_another_grid(rebundle):
    scores = encode_tensor("scores", np.zeros((8, 7), np.float32))
    bundle = decode_bundle(rebundle({"golden/good.safetensors": scores}), "other.lineward")
    with pytest.raises(BundleError, match=r"should be float32 \[8, 8\], found float32 \[8, 7\]"):
        bundle.golden_scores("golden/good.safetensors")


def test_encode_tensor_takes_any_layout():
    tensor = np.arange(12, dtype=np.float32).reshape(3, 4).T
    np.testing.assert_array_equal(load(encode_tensor("bank", tensor))["bank"], tensor)


# ---- Files ---------------------------------------------------------------------------------------------


def test_reading_writes_nothing(tiny_path, tmp_path, monkeypatch):
    for name in ("here", "tmp"):
        (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    beside = tmp_path / "part.lineward"
    beside.write_bytes(tiny_path.read_bytes())
    before = snapshot(tmp_path)
    read_bundle(beside)
    assert snapshot(tmp_path) == before


def test_write_then_read(tiny, tiny_bytes, tmp_path):
    path = tmp_path / "part.lineward"
    write_bundle(path, b"old")
    write_bundle(path, tiny_bytes)
    assert read_bundle(path).sha256 == tiny.sha256
    assert list(tmp_path.iterdir()) == [path]


def no_space(*_):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize(
    ("owner", "call"), [(os, "fsync"), (Path, "replace"), (os, "open")], ids=["fsync", "replace", "open"]
)
def test_a_failed_write_leaves_old_or_new_and_nothing_else(owner, call, tmp_path, monkeypatch):
    path = tmp_path / "part.lineward"
    path.write_bytes(b"old")
    monkeypatch.setattr(owner, call, no_space)
    with pytest.raises(BundleError, match="No space left on device") as caught:
        write_bundle(path, b"new")
    monkeypatch.undo()
    assert str(path) in caught.value.what
    assert "free space" in caught.value.do
    # os.open opens the folder to sync it, after the switch.
    assert snapshot(tmp_path) == {path: b"new" if call == "open" else b"old"}


def test_the_new_bytes_are_on_disk_before_the_switch(tmp_path, monkeypatch):
    path = tmp_path / "part.lineward"
    path.write_bytes(b"old")
    seen = []

    def look(_descriptor):
        seen.append(sorted(file.read_bytes() for file in tmp_path.iterdir()))

    monkeypatch.setattr(os, "fsync", look)
    write_bundle(path, b"new")
    assert seen == [[b"new", b"old"], [b"new"]]


@pytest.mark.parametrize(
    "place",
    ["missing/part.lineward", "folder", "file/part.lineward", "x" * 250 + ".lineward", "."],
    ids=lambda p: p[:20],
)
def test_a_place_that_cannot_be_written(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("folder").mkdir()
    Path("file").write_bytes(b"file")
    with pytest.raises(BundleError, match="cannot be written"):
        write_bundle(place, b"new")
    assert snapshot(tmp_path) == {tmp_path / "file": b"file"}


@pytest.mark.parametrize("place", ["missing.lineward", "folder", "file/part.lineward", "x" * 300])
def test_a_place_that_cannot_be_read(place, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").write_bytes(b"file")
    with pytest.raises(BundleError, match="cannot be read") as caught:
        read_bundle(tmp_path / place)
    assert str(tmp_path / place) in caught.value.what
    assert "check the path" in caught.value.do


def test_a_bundle_too_large_is_not_read(tmp_path, monkeypatch):
    path = tmp_path / "huge.lineward"
    with path.open("wb") as file:
        file.truncate((1 << 31) + 1)  # sparse: no byte of it is on disk

    def refuse(_path):
        raise AssertionError("it was read")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(BundleError, match="more than a bundle may have"):
        read_bundle(path)


def test_the_manifest_comes_first(tiny_bytes):
    assert tiny_bytes[30 : 30 + len(MANIFEST)] == MANIFEST.encode()
