"""Zips that two readers would understand in two ways, or that promise more than they hold."""

from __future__ import annotations

import io
import struct
import zipfile
from random import Random
from typing import NamedTuple

from benchmarks.hostile.material import Material, stored
from lineward.runtime.bundle import BANK, MANIFEST, SIGNATURE

_LOCAL = {"flags": (6, "<H"), "method": (8, "<H"), "crc": (14, "<I"), "packed": (18, "<I"), "size": (22, "<I")}
_LOCAL |= {"name": (26, "<H"), "extra": (28, "<H")}
_CENTRAL = {"flags": (8, "<H"), "method": (10, "<H"), "crc": (16, "<I"), "packed": (20, "<I"), "size": (24, "<I")}
_CENTRAL |= {"name": (28, "<H"), "extra": (30, "<H"), "comment": (32, "<H"), "disk": (34, "<H"), "offset": (42, "<I")}
_CENTRAL |= {"attributes": (38, "<I")}
_END = {"disk": (4, "<H"), "entries": (8, "<H"), "all": (10, "<H"), "size": (12, "<I"), "offset": (16, "<I")}
_END |= {"comment": (20, "<H")}
_NUMBERS = (0, 1, 7, 8, 12, 14, 97, 255, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFE, 0xFFFFFFFF)
_NAMES = (
    "/etc/passwd", "//server/x", "../evil", "golden/../../evil.png", "golden/..", "..\\evil", "C:\\evil", "C:evil",
    "golden/evil.png/", "golden//good.png", "./manifest.json", "manifest.json/", "Manifest.json", "MANIFEST.SIG",
    "manifest.json\0.png", "manifest.json ", "\u202enosj.tsefinam", "manifest\u200b.json", "golden/\u2024\u2024/x.png",
    "~/.ssh/authorized_keys", "$HOME/x", "%TEMP%/x", "`id`.png", "golden/;reboot;.png", "aux", "nul.png", "x" * 300,
    "golden/" + "a/" * 200 + "x.png", "", "\n", "\x1b[2J", "golden/\x1b]0;x\x07.png", "golden/evil.png", "evil.pkl",
)  # fmt: skip


class _Unseekable:
    def __init__(self) -> None:
        self.written = bytearray()

    def write(self, data: bytes) -> int:
        self.written += data
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        """Nothing is open."""


class Place(NamedTuple):
    """A member's name, and where its entry in the directory and its local header begin."""

    name: str
    central: int
    local: int


def places(data: bytes) -> list[Place]:
    """Where the members of a good zip lie."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        at: int = archive.start_dir
        found = []
        for info in archive.infolist():
            found.append(Place(info.filename, at, info.header_offset))
            name, extra, comment = struct.unpack_from("<HHH", data, at + 28)
            at += 46 + name + extra + comment
    return found


def _number(random: Random, layout: str) -> int:
    number = random.choice(_NUMBERS) if random.random() < 0.7 else random.getrandbits(32)
    return number & (0xFFFF if layout == "<H" else 0xFFFFFFFF)


def _set(data: bytes, at: int, layout: str, value: int) -> bytes:
    patched = bytearray(data)
    struct.pack_into(layout, patched, at, value)
    return bytes(patched)


def _scribble(material: Material, random: Random, fields: dict[str, tuple[int, str]]) -> bytes:
    data = material.data
    for _ in range(random.randint(1, 3)):
        offset, layout = random.choice(list(fields.values()))
        place = random.choice(places(material.data))
        at = place.local if fields is _LOCAL else place.central
        data = _set(data, at + offset, layout, _number(random, layout))
    return data


def wrong_local_header(material: Material, random: Random) -> bytes:
    """Local headers that say other than the directory."""
    return _scribble(material, random, _LOCAL)


def wrong_directory(material: Material, random: Random) -> bytes:
    """Entries of the directory that say other than the members."""
    return _scribble(material, random, _CENTRAL)


def wrong_end(material: Material, random: Random) -> bytes:
    """An end record with other counts, sizes and places."""
    data, end = material.data, material.data.rindex(b"PK\x05\x06")
    for _ in range(random.randint(1, 2)):
        offset, layout = random.choice(list(_END.values()))
        data = _set(data, end + offset, layout, _number(random, layout))
    return data


def huge_size(material: Material, random: Random) -> bytes:
    """A member that claims more bytes than the file has, in one place or in all of them."""
    _, central, local = random.choice(places(material.data))
    size = random.choice((len(material.data), 1 << 30, (1 << 31) - 1, 1 << 31, (1 << 32) - 2, random.getrandbits(32)))
    data = material.data
    for at, fields in random.choice(
        (((central, _CENTRAL),), ((local, _LOCAL),), ((central, _CENTRAL), (local, _LOCAL)))
    ):
        for field in random.choice((("size",), ("packed",), ("size", "packed"))):
            data = _set(data, at + fields[field][0], "<I", size)
    return data


def overlapping(material: Material, random: Random) -> bytes:
    """A member that begins inside another, or at another's place."""
    found = places(material.data)
    (_, central, _), (_, _, local) = random.sample(found, 2)
    return _set(material.data, central + 42, "<I", local + random.choice((0, 0, 1, 30, random.randrange(1000))))


def repeated_name(material: Material, random: Random) -> bytes:
    """One name twice, the second with the same bytes, others, or the other bundle's."""
    entries = list(material.members.items())
    name, data = random.choice(entries)
    again = random.choice((data, material.other[name], random.randbytes(random.randrange(2000)), b""))
    entries.insert(random.randint(0, len(entries)), (name, again))
    return stored(entries)


def alias_in_directory(material: Material, random: Random) -> bytes:
    """Two entries of the directory under one name, by renaming one in the directory alone or in both places."""
    found = [place for place in places(material.data) if len(place[0]) <= len("similarity.onnx")]
    (_, central, local), (name, _, _) = random.sample(found, 2)
    data = bytearray(material.data)
    new = name.encode()
    length = struct.unpack_from("<H", data, central + 28)[0]
    for at in random.choice(((central + 46,), (local + 30,), (central + 46, local + 30))):
        data[at : at + length] = new[:length].ljust(length, b"\0")
    return bytes(data)


def zip64(material: Material, random: Random) -> bytes:
    """Sizes and places in 64-bit fields, true, false or missing."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in material.members.items():
            with archive.open(zipfile.ZipInfo(name), "w", force_zip64=random.random() < 0.5) as file:
                file.write(data)
    data = buffer.getvalue()
    _, central, _ = random.choice(places(data))
    numbers = [random.choice((0, len(data), 1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)) for _ in range(3)]
    extra = struct.pack("<HHQQQ", 1, random.choice((24, 24, 16, 8, 0, 0xFFFF)), *numbers)
    extra = extra[: random.choice((len(extra), len(extra), 3, 12))]
    name_length, had = struct.unpack_from("<HH", data, central + 28)
    for offset in random.sample((20, 24, 42), random.randint(1, 3)):
        data = _set(data, central + offset, "<I", 0xFFFFFFFF)
    data = _set(data, central + 30, "<H", had + len(extra))
    after = central + 46 + name_length
    data = data[:after] + extra + data[after:]
    end = data.rindex(b"PK\x05\x06")
    (size,) = struct.unpack_from("<I", data, end + 12)
    data = _set(data, end + 12, "<I", size + len(extra))
    if random.random() < 0.5:
        return data
    start = end - size - len(extra)
    count = random.choice((len(material.members), 0, 1 << 32, (1 << 64) - 1))
    place = random.choice((start, start, end, 1 << 40))
    record = struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size + len(extra), place)
    locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, random.choice((end, end, 0, 1 << 40)), 1)
    return data[:end] + record + locator + _set(data[end:], 16, "<I", 0xFFFFFFFF)


def comments(material: Material, random: Random) -> bytes:
    """Comments of members and of the archive, with another zip, its directory or an end record in them."""
    buffer = io.BytesIO()
    hidden = stored(material.other.items())
    texts = (
        b"",
        b"PK\x05\x06" + bytes(18),
        hidden[-22:],
        hidden[-1000:],
        hidden,
        random.randbytes(random.randrange(4000)),
    )
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = random.choice(texts)[:0xFFFF]
        for name, data in material.members.items():
            info = zipfile.ZipInfo(name)
            info.comment = random.choice(texts)[:0xFFFF] if random.random() < 0.3 else b""
            info.extra = random.choice(
                (b"", struct.pack("<HH", 0x7075, 9) + b"\1" + bytes(4) + b"evil", random.randbytes(7))
            )
            archive.writestr(info, data)
    return buffer.getvalue()


def two_zips(material: Material, random: Random) -> bytes:
    """Another file before, after or around the bundle: which one is meant?"""
    hidden = random.choice(
        (
            stored(material.other.items()),
            stored([("a", random.randbytes(9))]),
            random.randbytes(500),
            b"\x7fELF" * random.randint(1, 999),
        )
    )
    return random.choice((hidden + material.data, material.data + hidden, hidden + material.data + hidden))


def data_descriptors(material: Material, random: Random) -> bytes:
    """Sizes and checksums after the members, as a writer makes them that cannot seek; some are false."""
    sink = _Unseekable()
    with zipfile.ZipFile(sink, "w") as archive:
        for name, data in material.members.items():
            archive.writestr(zipfile.ZipInfo(name), data)
    whole = bytes(sink.written)
    if random.random() < 0.3:
        return whole
    descriptors = [at for at in range(len(whole) - 16) if whole[at : at + 4] == b"PK\x07\x08"]
    return _set(whole, random.choice(descriptors) + random.choice((0, 4, 8, 12)), "<I", _number(random, "<I"))


def compressed(material: Material, random: Random) -> bytes:
    """Members that are compressed, by every method that zipfile knows; some are bombs."""
    method = random.choice((zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    members = dict(material.members)
    if random.random() < 0.5:
        members[random.choice(list(members))] = bytes(random.randint(1, 4) << 20)
    chosen = set(random.sample(list(members), random.randint(1, len(members))))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(zipfile.ZipInfo(name), data, method if name in chosen else zipfile.ZIP_STORED, 1)
    return buffer.getvalue()


def encrypted(material: Material, random: Random) -> bytes:
    """Flags of encryption, strong encryption, masked headers, patches and names in UTF-8."""
    data = material.data
    for _, central, local in random.sample(places(data), random.randint(1, 4)):
        flags = random.choice((1, 1 << 5, 1 << 6 | 1, 1 << 11, 1 << 13 | 1, 0xFFFF))
        for at in random.choice(((central + 8,), (local + 6,), (central + 8, local + 6))):
            data = _set(data, at, "<H", flags)
    return data


def bad_names(material: Material, random: Random) -> bytes:
    """Members that would be written elsewhere if anyone unpacked them, or that only look like a bundle's."""
    name = random.choice(_NAMES)
    entries = list(material.members.items())
    if random.random() < 0.5:
        entries.insert(random.randint(0, len(entries)), (name, random.choice((b"x", material.other[MANIFEST]))))
    else:
        index = random.randrange(len(entries))
        entries[index] = (name, entries[index][1])
    return stored(entries)


def links(material: Material, random: Random) -> bytes:
    """Members that are symbolic links, folders, devices or pipes, by their attributes."""
    buffer = io.BytesIO()
    kind = random.choice((0o120000, 0o040000, 0o060000, 0o020000, 0o010000, 0o140000))
    chosen = random.choice(list(material.members))
    target = random.choice(
        (material.members[chosen], b"/etc/passwd", b"../" * random.randrange(99) + b"etc/shadow", b"")
    )
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in material.members.items():
            info = zipfile.ZipInfo(name)
            info.create_system = 3
            info.external_attr = ((kind if name == chosen else 0o100000) | 0o4777) << 16
            archive.writestr(info, target if name == chosen else data)
    return buffer.getvalue()


def crowded(material: Material, random: Random) -> bytes:
    """Hundreds to thousands of empty members."""
    count = random.randint(100, 2500)
    return stored([*material.members.items(), *((f"golden/{n}.png", b"") for n in range(count))])


def swapped_inside(material: Material, random: Random) -> bytes:
    """Two members in each other's place."""
    first, second = random.sample(list(material.members), 2)
    names = {first: second, second: first}
    entries = [(names.get(name, name), data) for name, data in material.members.items()]
    random.shuffle(entries)
    return stored(entries)


def swapped_between(material: Material, random: Random) -> bytes:
    """Members of the next version in the place of this one's, its manifest or signatures among them or not."""
    taken = set(random.sample(list(material.members), random.randint(1, len(material.members) - 1)))
    if taken >= {MANIFEST, SIGNATURE, BANK}:  # all that differs: that would be the next version itself
        taken.remove(random.choice((MANIFEST, SIGNATURE, BANK)))
    entries = [(name, (material.other if name in taken else material.members)[name]) for name in material.members]
    random.shuffle(entries)
    return stored(entries)


def missing(material: Material, random: Random) -> bytes:
    """Members left out."""
    gone = random.sample(list(material.members), random.randint(1, len(material.members)))
    return stored((name, data) for name, data in material.members.items() if name not in gone)


def unsigned(material: Material, random: Random) -> bytes:
    """A whole bundle, only that nobody signed it."""
    entries = [entry for entry in material.members.items() if entry[0] != SIGNATURE]
    random.shuffle(entries)
    return stored(entries)
