"""Bundles that only a signature's check can tell from good ones."""

from __future__ import annotations

import base64
import json
from datetime import timedelta
from random import Random
from typing import Any

from benchmarks.hostile.damage import any_damage
from benchmarks.hostile.material import (
    ELSEWHERE,
    EXPIRED,
    LINE,
    REVOKED,
    SIGNED,
    STRANGER,
    Material,
    make_signer,
    sealed,
    sign,
    stored,
)
from lineward.runtime.bundle import MANIFEST, SIGNATURE
from lineward.runtime.signature import Signature, encode_signatures


def changed_manifest(material: Material, random: Random) -> dict[str, bytes]:
    """Members with a manifest that passes more parts, or says that it is of another product or version."""
    document = json.loads(material.members[MANIFEST])
    threshold = document["threshold"]
    change: dict[str, Any] = random.choice(
        (
            {"threshold": {**threshold, "value": random.uniform(threshold["value"], 2)}},
            {"version": random.choice((random.randint(2, 10**9), (1 << 63) - 1))},
            {"product": random.choice(("another product", f"product {random.randrange(10**6)}"))},
            {"created": f"20{random.randint(10, 99)}-{random.randint(1, 12):02}-01T00:00:00Z"},
            {"golden": []},
        )
    )
    return {**material.members, MANIFEST: json.dumps(document | change).encode()}


def over_another_manifest(material: Material, random: Random) -> bytes:
    """Good signatures, taken from this version or the next, over a manifest that was changed after."""
    members = changed_manifest(material, random)
    members[SIGNATURE] = random.choice((material.members, material.other))[SIGNATURE]
    return stored(members.items())


def by_keys_that_do_not_count(material: Material, random: Random) -> bytes:
    """Signed over the true manifest or a changed one by keys of strangers, revoked, expired, or of another product."""
    members = random.choice((material.members, changed_manifest(material, random)))
    signers = random.sample((STRANGER, REVOKED, EXPIRED, ELSEWHERE), random.randint(1, 4))
    if ELSEWHERE in signers and json.loads(members[MANIFEST])["product"] in (ELSEWHERE.public.products or ()):
        signers = [STRANGER]
    moment = SIGNED + timedelta(days=random.randint(-400, 400))
    marks = tuple(sign(members[MANIFEST], signer, moment) for signer in signers)
    return stored({**members, SIGNATURE: encode_signatures(marks)}.items())


def under_another_name(material: Material, random: Random) -> bytes:
    """A stranger's signature that claims a trusted key, or a trusted one with another time or other bytes in it."""
    manifest = changed_manifest(material, random)[MANIFEST]
    good, strange = sign(manifest, LINE), sign(manifest, STRANGER)
    mark = bytearray(good.signature)
    mark[random.randrange(64)] ^= 1 << random.randrange(8)
    later = f"20{random.randint(26, 99)}-{random.randint(1, 12):02}-01T00:00:00Z"
    signature = random.choice(
        (
            Signature(good.key, good.signed, strange.signature),
            Signature(good.key, later, good.signature),
            Signature(good.key, good.signed, bytes(mark)),
            Signature(good.key, good.signed, bytes(64)),
            Signature(STRANGER.public.fingerprint, good.signed, good.signature),
            # Ed25519's other half of the scalar: the group's order added to s.
            Signature(good.key, good.signed, good.signature[:32] + _beyond_the_order(good.signature[32:])),
            sign(manifest, LINE, SIGNED + timedelta(days=random.randint(3000, 20000))),
        )
    )
    return stored({**material.members, MANIFEST: manifest, SIGNATURE: encode_signatures((signature,))}.items())


def _beyond_the_order(scalar: bytes) -> bytes:
    order = (1 << 252) + 27742317777372353535851937790883648493
    return ((int.from_bytes(scalar, "little") + order) & ((1 << 256) - 1)).to_bytes(32, "little")


def malformed_signatures(material: Material, random: Random) -> bytes:
    """A `manifest.sig` in another form: other JSON, too many, too deep, twice the same key, numbers without end."""
    good = json.loads(material.members[SIGNATURE])
    (entry,) = good
    raw = base64.b64decode(entry["signature"])
    many = [json.loads(encode_signatures((sign(b"x", make_signer(str(n))),)))[0] for n in range(random.randint(1, 20))]
    forms: tuple[Any, ...] = (
        good * 2,
        [*many, *good] * 2,
        [],
        entry,
        [{**entry, "extra": 1}],
        [{**entry, "key": entry["key"].upper()}],
        [{**entry, "key": entry["key"] + "\n"}],
        [{**entry, "signed": random.choice(("", "now", "2025-02-30T00:00:00Z", "2025-06-15T12:00:00+00:00", 0, None))}],
        [{**entry, "signature": base64.b64encode(raw[: random.randrange(64)]).decode()}],
        [{**entry, "signature": random.choice((0, None, [], "=", "\u0000" * 88))}],
        [{key: entry[key] for key in random.sample(list(entry), 2)}],
    )
    texts = (
        b"[" * random.randint(1, 16000),
        b'[{"key":' * random.randint(1, 1500),
        b"[" + b"9" * random.randint(1, 16000) + b"]",
        b"[1e" + b"9" * random.randint(1, 9000) + b"]",
        material.members[SIGNATURE] + b" ",
        b"\xef\xbb\xbf" + material.members[SIGNATURE],
        material.members[SIGNATURE].decode().encode("utf-16"),
        b" " * random.choice(((1 << 14) - 1, 1 << 14, 1 << 15)),
        any_damage(random, material.members[SIGNATURE]),
    )
    data = json.dumps(random.choice(forms)).encode() if random.random() < 0.6 else random.choice(texts)
    return stored({**material.members, SIGNATURE: data}.items())


def damaged_manifest(material: Material, random: Random) -> bytes:
    """The manifest damaged, with its old signature or a stranger's over the new bytes."""
    members = {**material.members, MANIFEST: any_damage(random, material.members[MANIFEST])}
    return stored((members if random.random() < 0.5 else sealed(members, STRANGER)).items())
