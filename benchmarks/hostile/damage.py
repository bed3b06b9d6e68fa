"""Bytes damaged at random: by bad memory, a bad disk, a cut transfer, or somebody who tries."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

Damage = Callable[[Random, bytes], bytes]


def flip(random: Random, data: bytes) -> bytes:
    """Turn up to 16 bits."""
    damaged = bytearray(data)
    for _ in range(random.randint(1, 16)):
        damaged[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(damaged)


def cut(random: Random, data: bytes) -> bytes:
    """Cut the end off."""
    return data[: random.randrange(len(data))]


def splice(random: Random, data: bytes) -> bytes:
    """Copy a stretch over another place."""
    length = random.randint(1, max(2, len(data) // 4))
    start, to = random.randrange(len(data)), random.randrange(len(data))
    return data[:to] + data[start : start + length] + data[to + length :]


def insert(random: Random, data: bytes) -> bytes:
    """Put bytes in between."""
    at = random.randint(0, len(data))
    return data[:at] + random.randbytes(random.randint(1, 64)) + data[at:]


def drop(random: Random, data: bytes) -> bytes:
    """Take bytes away."""
    start = random.randrange(len(data))
    return data[:start] + data[start + random.randint(1, 64) :]


def blank(random: Random, data: bytes) -> bytes:
    """Overwrite a stretch by zeros, as a sector that never reached the disk."""
    start, length = random.randrange(len(data)), random.randint(1, 512)
    return (data[:start] + b"\0" * length)[: len(data)] + data[start + length :]


def saturate(random: Random, data: bytes) -> bytes:
    """Overwrite two, four or eight bytes by all ones: lengths become huge, numbers negative, floats NaN."""
    start, length = random.randrange(len(data)), random.choice((2, 4, 8))
    return data[:start] + b"\xff" * length + data[start + length :]


DAMAGES: tuple[Damage, ...] = (flip, cut, splice, insert, drop, blank, saturate)


def any_damage(random: Random, data: bytes) -> bytes:
    """One of them."""
    return random.choice(DAMAGES)(random, data)
