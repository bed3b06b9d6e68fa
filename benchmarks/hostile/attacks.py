"""The kinds of hostile bundles, and what must become of each."""

from __future__ import annotations

import enum
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random

from benchmarks.hostile import contents, forged, zips
from benchmarks.hostile.damage import DAMAGES, Damage
from benchmarks.hostile.material import Material

Make = Callable[[Material, Random], bytes]


class Expected(enum.Enum):
    """What a device may make of a bundle."""

    REFUSED = "refused"
    REFUSED_OR_SAME = "refused, or read as the very bundle that was signed"
    REFUSED_OR_CLOSED = "refused, or golden results and a verdict that fails closed: a trusted key signed it"


@dataclass(frozen=True)
class Attack:
    """A kind of hostile bundle.

    Attributes:
        make: gives another one for each state of its random numbers.
        expected: what may become of it.
    """

    make: Make
    expected: Expected = Expected.REFUSED_OR_SAME


def _damaged(damage: Damage) -> Make:
    return lambda material, random: damage(random, material.data)


ATTACKS: Mapping[str, Attack] = {
    **{f"file, {damage.__name__}": Attack(_damaged(damage)) for damage in DAMAGES},
    "zip, local headers": Attack(zips.wrong_local_header),
    "zip, directory": Attack(zips.wrong_directory),
    "zip, end record": Attack(zips.wrong_end),
    "zip, huge sizes": Attack(zips.huge_size),
    "zip, overlapping members": Attack(zips.overlapping),
    "zip, repeated names": Attack(zips.repeated_name),
    "zip, one name in the directory twice": Attack(zips.alias_in_directory),
    "zip, zip64": Attack(zips.zip64),
    "zip, comments": Attack(zips.comments),
    "zip, two in one": Attack(zips.two_zips, Expected.REFUSED),
    "zip, data descriptors": Attack(zips.data_descriptors, Expected.REFUSED),
    "zip, compressed": Attack(zips.compressed),
    "zip, encrypted": Attack(zips.encrypted),
    "zip, absolute, upward and look-alike names": Attack(zips.bad_names, Expected.REFUSED),
    "zip, links and devices": Attack(zips.links),
    "zip, thousands of members": Attack(zips.crowded, Expected.REFUSED),
    "members exchanged": Attack(zips.swapped_inside, Expected.REFUSED),
    "members of the next version": Attack(zips.swapped_between),
    "members missing": Attack(zips.missing, Expected.REFUSED),
    "not signed": Attack(zips.unsigned, Expected.REFUSED),
    "signature over another manifest": Attack(forged.over_another_manifest, Expected.REFUSED),
    "signed by strangers, revoked, expired, of another product": Attack(
        forged.by_keys_that_do_not_count, Expected.REFUSED
    ),
    "signature under another name, time or bytes": Attack(forged.under_another_name, Expected.REFUSED),
    "signatures malformed": Attack(forged.malformed_signatures),
    "manifest damaged": Attack(forged.damaged_manifest),
    "signed: graph with tensors from outside": Attack(contents.tensors_from_outside, Expected.REFUSED),
    "signed: graph of terabytes": Attack(contents.greedy_graph, Expected.REFUSED),
    "signed: deep or endless JSON": Attack(contents.deep_or_endless_json, Expected.REFUSED_OR_CLOSED),
    "signed: manifest with another value": Attack(contents.another_value, Expected.REFUSED_OR_CLOSED),
    "signed: bank of wrong type, shape, byte order": Attack(contents.wrong_tensor, Expected.REFUSED),
    "signed: bank of NaN, infinity, no unit length": Attack(contents.impossible_rows, Expected.REFUSED),
    "signed: golden images and results": Attack(contents.bad_golden, Expected.REFUSED),
    "signed: graph damaged": Attack(contents.damaged_graph, Expected.REFUSED_OR_CLOSED),
    "signed: bank or golden images damaged": Attack(contents.damaged_rest, Expected.REFUSED_OR_CLOSED),
    "signed: members exchanged": Attack(contents.members_exchanged, Expected.REFUSED),
}


def make_bundle(kind: str, number: int, material: Material) -> bytes:
    """The bytes of one hostile bundle: always the same for its kind and number, and never those of the good one."""
    random = Random(f"{kind} {number}")
    while (data := ATTACKS[kind].make(material, random)) == material.data:
        pass
    return data
