"""Bundles that a trusted key signed and that hold what a bundle must not: by a thief, or a broken workstation."""

from __future__ import annotations

import json
import struct
import zlib
from collections.abc import Callable
from random import Random
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save

from benchmarks.hostile.damage import any_damage
from benchmarks.hostile.material import LINE, Material, packed, sealed, stored
from lineward.runtime.bundle import BANK, BANK_TENSOR, EMBEDDING, MANIFEST, SIMILARITY, Bundle, encode_tensor

OUTSIDE = "outside.bin"
"""A file beside the device's folder that holds the very rows of the bank: a graph that reads it gives good results."""

_VALUES = (None, True, -1, 0, 1, 7, 63, 65, 2048, 1 << 24, 1 << 31, 1 << 63, 1 << 70, 1e-300, 0.5, 2.0, 1e300, "", "x")
_VALUES_MORE: tuple[Any, ...] = ([], {}, "\u0000", "x" * 5000, [1] * 5000, -0.0, 1e-46, "../x", "golden/good.png")


def outside_file(bundle: Bundle) -> tuple[bytes, dict[str, int]]:
    """The bytes of `OUTSIDE`, and where the rows of the bank and each tensor of the embedding lie in it."""
    tensors = {"rows": bundle.bank.tobytes()}
    for tensor in onnx.load_from_string(bundle.members[EMBEDDING]).graph.initializer:
        tensors[tensor.name] = numpy_helper.to_array(tensor).tobytes()
    data, offsets = b"", {}
    for name, values in tensors.items():
        offsets[name] = len(data)
        data += values + bytes(-len(values) % 4096)  # a page each, so that it can be mapped
    return data, offsets


def tensors_from_outside(material: Material, random: Random) -> bytes:
    """A graph that takes weights from a file, or from an address in memory, that no hash covers."""
    file = material.folder / OUTSIDE
    places = (
        *[str(file), OUTSIDE, f"../{OUTSIDE}", f"./../{file.parent.name}/{OUTSIDE}", f"{file.parent}//{OUTSIDE}"] * 2,
        *[f"file://{file}", "/etc/passwd", "/proc/self/mem", "/dev/zero", "*/_ORT_MEM_ADDR_/*", BANK, "", "\0"],
    )
    member = random.choice((EMBEDDING, SIMILARITY))
    model = onnx.load_from_string(material.bundle.members[member])
    if member == SIMILARITY:  # the bank as it is due, and the rows that count from elsewhere
        bank = next(t for t in model.graph.initializer if t.name == BANK_TENSOR)
        tensor = numpy_helper.from_array(material.bundle.bank, "rows")
        model.graph.initializer.append(tensor)
        tensor = model.graph.initializer[-1]
        if random.random() < 0.7:
            bank.CopyFrom(numpy_helper.from_array(material.bundle.bank, BANK_TENSOR))
        next(node for node in model.graph.node if node.op_type == "Gemm").input[1] = "rows"
    else:
        tensor = random.choice(list(model.graph.initializer))
    _move_out(random, tensor, random.choice(places), outside_file(material.bundle)[1][tensor.name])
    if random.random() < 0.3:  # as a constant node instead of an initializer
        constant = TensorProto()
        constant.CopyFrom(tensor)
        model.graph.initializer.remove(tensor)
        model.graph.node.insert(0, helper.make_node("Constant", [], [constant.name], value=constant))
    return packed(material, {member: model.SerializeToString()}, LINE)


def _move_out(random: Random, tensor: TensorProto, place: str, offset: int) -> None:
    length = len(numpy_helper.to_array(tensor).tobytes())
    for field in ("raw_data", "float_data", "int64_data", "int32_data"):
        tensor.ClearField(field)
    tensor.data_location = TensorProto.EXTERNAL
    entries = {"location": place, "offset": str(offset), "length": str(length)}
    if random.random() < 0.3:
        entries[random.choice(("offset", "length"))] = str(random.choice((-1, 0, 1, 1 << 40, 1 << 62, (1 << 63) - 1)))
    for key in random.sample(list(entries), len(entries)):
        tensor.external_data.add(key=key, value=entries[key])


def greedy_graph(material: Material, random: Random) -> bytes:
    """A graph that asks for terabytes: by its shapes, by what it computes, or by a tensor that says it is huge."""
    side = random.randint(1 << 20, (1 << 31) - 1)
    member = random.choice((EMBEDDING, SIMILARITY))
    model = onnx.load_from_string(material.bundle.members[member])
    kind = random.randrange(3)
    if kind == 0:
        chosen = random.choice([t for t in model.graph.initializer if not t.external_data])
        chosen.dims[:] = [side, side]
    elif kind == 1:
        shape = helper.make_tensor("huge_shape", TensorProto.INT64, [2], [side, side])
        model.graph.initializer.append(shape)
        fill = helper.make_tensor("fill", TensorProto.FLOAT, [1], [1.0])
        model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["huge_shape"], ["huge"], value=fill))
        model.graph.node.append(helper.make_node("ReduceMax", ["huge"], ["one"], keepdims=0))
        output = model.graph.output[0].name
        for node in model.graph.node:
            node.output[:] = ["was" if name == output else name for name in node.output]
        model.graph.node.append(helper.make_node("Add", ["was", "one"], [output]))
    else:
        shape = helper.make_tensor("huge_shape", TensorProto.INT64, [4], [side, 64, 64, 3])
        model.graph.initializer.append(shape)
        name = model.graph.input[0].name
        for node in model.graph.node:
            node.input[:] = ["expanded" if given == name else given for given in node.input]
        model.graph.node.insert(0, helper.make_node("Expand", [name, "huge_shape"], ["expanded"]))
    return packed(material, {member: model.SerializeToString()}, LINE)


def deep_or_endless_json(material: Material, random: Random) -> bytes:
    """A manifest of a hundred thousand brackets, of numbers with as many digits, or of keys that repeat."""
    good = material.members[MANIFEST]
    many = random.randint(1, 150_000)
    texts = (
        b"[" * many,
        b'{"a":' * many,
        b"[" * many + b"]" * many,
        good.replace(b'"version"', b'"version": ' + b"9" * many + b', "x"', 1),
        good.replace(b'"tau": 3.0', b'"tau": 1e' + b"9" * many),
        good.replace(b'"tau": 3.0', b'"tau": 0.' + b"0" * many + b"1e1"),
        good.replace(b'"tau": 3.0', b'"tau": NaN'),
        good.replace(b'"tau": 3.0', b'"tau": -Infinity'),
        good.replace(b'"origin"', b'"deep": ' + b"[" * many + b"]" * many + b', "origin"', 1),
        good.replace(b"{", b'{"format": 2, ', 1),
        b"\xef\xbb\xbf" + good,
        good.decode().encode(random.choice(("utf-16", "utf-32"))),
        good + good,
        good + bytes(many),
        b'{"format": 1}',
        b'{"format": ' + b"1" * many + b"}",
        b'{"format": 1.0}',
        b'"' + b"\\ud800" * (many // 8) + b'"',
        b" " * ((1 << 20) + random.choice((-1, 0, 1))),
    )
    return stored(sealed({**material.members, MANIFEST: random.choice(texts)}, LINE).items())


def another_value(material: Material, random: Random) -> bytes:
    """A manifest with one value replaced by another, of another type, sign, size or length."""
    document = json.loads(material.members[MANIFEST])
    inner: Any = document
    while True:
        key = random.choice(sorted(inner)) if isinstance(inner, dict) else random.randrange(len(inner))
        if not (isinstance(inner[key], dict | list) and inner[key] and random.random() < 0.75):
            break
        inner = inner[key]
    inner[key] = random.choice((*_VALUES, *_VALUES_MORE))
    return stored(sealed({**material.members, MANIFEST: json.dumps(document).encode()}, LINE).items())


def wrong_tensor(material: Material, random: Random) -> bytes:
    """A bank of another type, shape, name or byte order, or whose header lies."""
    bank = material.bundle.bank[random.sample(range(len(material.bundle.bank)), len(material.bundle.bank))]
    kinds = (np.float64, np.float16, np.int8, np.uint8, np.int32, np.int64, np.bool_)
    rows, columns = bank.shape
    header = {BANK_TENSOR: {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, bank.nbytes]}}
    lies: tuple[dict[str, Any], ...] = (
        {"shape": [rows * 2, columns]}, {"shape": [columns, rows]}, {"shape": []}, {"shape": [0, columns]},
        {"shape": [-1, columns]}, {"shape": [1 << 62, 4]}, {"data_offsets": [0, bank.nbytes * 2]},
        {"data_offsets": [bank.nbytes, 0]}, {"data_offsets": [-8, bank.nbytes]}, {"data_offsets": [4, bank.nbytes]},
        {"dtype": "F33"}, {"dtype": "F64"}, {"dtype": "BF16"}, {"dtype": "F8_E5M2"}, {"data_offsets": [0, 1 << 63]},
    )  # fmt: skip
    lied = {BANK_TENSOR: {**header[BANK_TENSOR], **random.choice(lies)}}
    shared = {**header, "another": header[BANK_TENSOR]}
    texts = (
        json.dumps(lied),
        json.dumps(shared),
        "[" * 5000,
        "{" * random.randrange(5000),
        json.dumps(header)[:-1],
        "",
    )
    length = random.choice((1 << 60, (1 << 64) - 1, 0, 1, 100_000_001, bank.nbytes, random.getrandbits(63)))
    forms: tuple[bytes, ...] = (
        save({BANK_TENSOR: bank.astype(random.choice(kinds))}),
        save({BANK_TENSOR: np.ascontiguousarray(bank.T)}),
        save(
            {
                BANK_TENSOR: np.ascontiguousarray(
                    bank.reshape(random.choice(((rows // 2, -1), (1, rows, columns), (-1,))))
                )
            }
        ),
        save({BANK_TENSOR: bank[: random.randrange(rows)]}),
        save({random.choice(("rows", "", "Bank", "bank ")): bank}),
        save({BANK_TENSOR: bank.byteswap()}),
        *[_safetensors(random.choice(texts), bank.tobytes())] * 4,
        struct.pack("<Q", length) + json.dumps(header).encode() + bank.tobytes(),
        any_damage(random, material.members[BANK])[:8] + b"{}",
    )
    return packed(material, {BANK: random.choice(forms)}, LINE)


def _safetensors(header: str, body: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header.encode() + body


def impossible_rows(material: Material, random: Random) -> bytes:
    """A bank with rows of NaN, of infinity, of zero, too long or too short."""
    bank: NDArray[np.float32] = material.bundle.bank.copy()
    chosen = random.sample(range(len(bank)), random.randint(1, len(bank)))
    value = random.choice((np.nan, np.inf, -np.inf, 0.0, 3e38, 1e-45, "scaled", "one nan"))
    if value == "scaled":
        bank[chosen] *= random.choice((-3, 0.5, 0.99, 1.01, 2, 1e10))
    elif value == "one nan":
        bank[chosen[0], random.randrange(bank.shape[1])] = np.nan
    else:
        bank[chosen] = value
    return packed(material, {BANK: encode_tensor(BANK_TENSOR, bank)}, LINE)


def bad_golden(material: Material, random: Random) -> bytes:
    """A golden image that is none, that unpacks to gigabytes, or results that no device gives."""
    side = random.choice((1, random.randint(1, 100), 31_000, random.randint(30_000, 200_000), (1 << 31) - 1))
    image, scores = "golden/good.png", "golden/good.safetensors"
    grid = material.bundle.manifest.grid
    wrong = np.full((grid.rows, grid.columns), random.choice((random.uniform(-1, 3), np.nan, np.inf)), np.float32)
    forms: tuple[Callable[[], dict[str, bytes]], ...] = (
        lambda: {image: _png(side, random.choice((side, 1)), bytes(random.randrange(1 << 16)))},
        lambda: {image: _png(side, random.choice((side, 1)), bytes(random.randrange(1 << 16)))},
        lambda: {image: _png(3000, 3000, bytes(3000 * 9001))},
        lambda: {image: material.bundle.members["golden/defect.png"]},
        lambda: {image: random.choice((b"", b"GIF89a", b"BM" + bytes(60), b"P5\n99999 99999\n255\n", b"#?RADIANCE\n"))},
        lambda: {image: random.randbytes(random.randrange(500))},
        lambda: {scores: encode_tensor("scores", wrong)},
        lambda: {scores: encode_tensor("scores", wrong[1:])},
        lambda: {scores: encode_tensor("other", wrong)},
    )
    return packed(material, random.choice(forms)(), LINE)


def _png(width: int, height: int, raw: bytes) -> bytes:
    """A PNG that says how large it is, whatever its pixels."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(raw)) + chunk(b"IEND", b"")


def damaged_graph(material: Material, random: Random) -> bytes:
    """A graph damaged before it was hashed and signed."""
    member = random.choice((EMBEDDING, SIMILARITY))
    return packed(material, {member: any_damage(random, material.bundle.members[member])}, LINE)


def damaged_rest(material: Material, random: Random) -> bytes:
    """Bank, golden image or golden results damaged before they were hashed and signed."""
    member = random.choice([name for name in material.bundle.members if name not in (EMBEDDING, SIMILARITY)])
    return packed(material, {member: any_damage(random, material.bundle.members[member])}, LINE)


def members_exchanged(material: Material, random: Random) -> bytes:
    """Members in each other's place, honestly hashed and signed."""
    names = random.sample(list(material.bundle.members), random.randint(2, len(material.bundle.members)))
    turned = zip(names, [*names[1:], names[0]], strict=True)
    return packed(material, {name: material.bundle.members[other] for name, other in turned}, LINE)
