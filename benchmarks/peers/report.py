"""`results/peers.md`, from `results/peers.json` alone."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any


def write_report(path: Path) -> Path:
    """Write the document of a results file beside it."""
    record = json.loads(path.read_text())
    document = path.with_suffix(".md")
    document.write_text("\n".join(_document(record)) + "\n")
    return document


def _document(record: Mapping[str, Any]) -> Iterable[str]:
    figures, machine = record["figures"], record["machine"]
    peers = ", ".join(f"{name} {number}" for name, number in figures["peers"].items())
    yield "# Lineward beside its peers"
    yield ""
    yield f"Written by `{record['command']}` on {record['date']}; {machine['cpu']}, {machine['cores']} cores, load"
    yield f"{machine['load_1_minute']} at the end. {peers}."
    yield f"{figures['threads']} threads for everyone, each in a process of its own, in {figures['rounds']} interleaved"
    yield "rounds for the similarity stage, fewer elsewhere. A multiple is of two times of the same round: median, and"
    yield "quartiles in brackets; above 1 is slower than Lineward."
    for rows, found in figures["similarity"].items():
        yield from _similarity(int(rows), found)
    yield from _end_to_end(figures["end_to_end"])
    yield from _growth(figures["growth"])
    yield from _building(figures["building"])


def _similarity(rows: int, found: Mapping[str, Any]) -> Iterable[str]:
    yield from ("", f"## Similarity: {found['queries']:,} queries, {found['dimensions']} dimensions, {rows:,} rows", "")
    yield from _table(
        ("", "milliseconds", "multiple of ours", "greatest difference from numpy"),
        [
            (name, _spread(f["milliseconds"], 2), _spread(f["multiple_of_ours"], 2), f"{f['greatest_difference']:.1e}")
            for name, f in found["contenders"].items()
        ],
    )
    yield ""
    yield f"The best square product of this run: {found['square_product_gflops']} GFLOP/s. Ours gives the results of "
    yield f"{found['effective_gflops']} GFLOP/s of plain products: {found['effective_rate_by_square_product']} of it."


def _end_to_end(found: Mapping[str, Any]) -> Iterable[str]:
    yield from ("", f"## Frame of {found['frame']} to score and map", "")
    presets = found["as_multiples_of"]
    names = next(iter(presets.values()))
    head = ("", "milliseconds", *(f"multiple of {p} ({found['rows'][p]:,} rows)" for p in presets), "resident MiB")
    rows = []
    for name, first in names.items():
        multiples = [_spread(of[name]["multiple_of_ours"], 1) for of in presets.values()]
        rows.append((name, _spread(first["milliseconds"], 1), *multiples, f"{first['resident_mib']:.0f}"))
    yield from _table(head, rows)
    yield ""
    yield "anomalib's weights and bank are random here: they decide nothing about time. Accuracy on the same images: "
    yield "[tables.md](tables.md)."


def _growth(found: Mapping[str, Any]) -> Iterable[str]:
    yield from ("", "## Growth: seconds ~ size ^ exponent, by least squares of the logarithms", "")
    for title, curves in (
        ("rows of the bank", found["bank"]),
        ("dimensions of an embedding, plain product, 4,096 rows", found["dimension"]),
        ("side of the input, preset fast (exponent of the pixels)", {"Lineward": found["input"]}),
    ):
        sizes = next(iter(curves.values()))["sizes"]
        yield from (f"By {title}, milliseconds:", "")
        yield from _table(
            ("", *map(str, sizes), "exponent", "without the smallest", "MiB of memory a MiB of bank"),
            [
                (
                    name,
                    *(f"{ms:.2f}" for ms in curve["milliseconds"]),
                    f"{curve['exponent']:.2f}",
                    f"{curve['exponent_without_the_smallest']:.2f}" if curves is not found["input"] else "-",
                    str(curve.get("resident_mib_per_bank_mib", "-")),
                )
                for name, curve in curves.items()
            ],
        )
        yield ""


def _building(found: Mapping[str, Any]) -> Iterable[str]:
    yield f"## Building a bank of {found['rows']:,} rows from {found['patches']:,} patches"
    yield ""
    yield f"Coverage is 1 - cosine from {found['held_out']:,} patches held out to their nearest row."
    yield ""
    yield from _table(
        ("", "seconds", "multiple of ours", "coverage, mean", "coverage, greatest"),
        [
            (
                name,
                _spread([ms / 1e3 for ms in f["milliseconds"]], 2),
                _spread(f["multiple_of_ours"], 1),
                f"{f['held_out_mean']:.4f}",
                f"{f['held_out_greatest']:.4f}",
            )
            for name, f in found["contenders"].items()
        ],
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterable[str]:
    yield "| " + " | ".join(head) + " |"
    yield "|" + "---|" * len(head)
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _spread(quartiles: Sequence[float], digits: int) -> str:
    low, middle, high = (f"{value:.{digits}f}" for value in quartiles)
    return f"{middle} ({low} to {high})"
