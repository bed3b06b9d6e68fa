"""The search: every candidate judged once, timed once, and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

from lineward.export.bundle_bank import with_bank
from lineward.export.training import Progress, Recipe
from lineward.export.tuning.judges import Panel
from lineward.export.tuning.judging import draft, judge_banks
from lineward.export.tuning.store import Store, device_key
from lineward.export.tuning.table import Candidate, Graph, Row, Timing, worth_timing
from lineward.export.tuning.timing import Bundles, probe, time_in_full
from lineward.runtime.bench.measure import Plan, Say
from lineward.runtime.bench.triggers import Clock
from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import TrainingError

SIZES = (192, 256, 320, 384)
BANKS = (512, 1024, 2048, 4096, 8192, 16384)


def candidates(graphs: Iterable[Graph], banks: Sequence[int], images: int, recipe: Recipe) -> list[Candidate]:
    """Every pair of an embedding graph and a bank that the images can fill.

    Args:
        graphs: what may embed.
        banks: rows.
        images: good images that build the bank.
        recipe: gives the feature levels, and the tiles of an image.

    Raises:
        TrainingError: the images can fill none.
    """
    finest, tiles = min(recipe.levels), math.prod(recipe.tiles or (1,))
    found = [Candidate(graph, rows) for graph in dict.fromkeys(graphs) for rows in sorted(set(banks))
             if rows <= images * tiles * (graph.size // finest) ** 2]  # fmt: skip
    if not found:
        raise TrainingError(
            f"{images} good images have fewer patches than the smallest bank has rows, {min(banks)}",
            do="pass more images, or smaller banks: --banks",
        )
    return found


def judge(
    wanted: Sequence[Candidate], panel: Panel, product: str, recipe: Recipe, store: Store, progress: Progress
) -> None:
    """Judge the candidates that are not judged yet, a graph at a time, and keep what was found."""
    for graph in dict.fromkeys(candidate.graph for candidate in wanted):
        banks = [c.rows for c in wanted if c.graph == graph and store.accuracy(c) is None]
        if not banks:
            continue
        least = min(c.rows for c in wanted if c.graph == graph)
        of_graph = replace(recipe, size=graph.size, precision=graph.precision, dimensions=graph.dimensions, rows=least)
        bundle = store.draft(graph)
        if bundle is None:
            bundle = draft(panel, product, of_graph, progress)
            store.keep_draft(graph, bundle)
        for rows, judged in judge_banks(bundle, panel, of_graph, banks, progress):
            store.keep_judged(Candidate(graph, rows), judged)


def time_candidates(
    wanted: Sequence[Candidate], store: Store, plan: Plan, say: Say, again: bool = False, clock: Clock | None = None
) -> list[Row]:
    """Time the candidates that are not timed yet on this device, and keep what was found.

    Args:
        wanted: candidates that were judged.
        store: holds their drafts and banks.
        plan: see `probe`.
        say: see `probe`.
        again: time all of them, whatever is kept.
        clock: see `probe`.

    Returns:
        The table, one row a candidate that was judged.
    """
    device = device_key(plan)
    timings = {} if again else store.timings(device)
    bundles = bundles_of(wanted, store)
    new = {candidate: make for candidate, make in bundles.items() if candidate not in timings}
    if new:
        timings |= probe(new, plan, say, clock)
        store.keep_timings(device, timings)
    worth = worth_timing(rows_of(bundles, store, timings))
    new = {candidate: bundles[candidate] for candidate in worth if not timings[candidate].p99}
    if new:
        timings |= time_in_full(new, timings, plan, say, clock)
        store.keep_timings(device, timings)
    return rows_of(bundles, store, timings)


def rows_of(wanted: Iterable[Candidate], store: Store, timings: Mapping[Candidate, Timing]) -> list[Row]:
    """The table of the candidates that were judged and timed."""
    accuracies = ((candidate, store.accuracy(candidate)) for candidate in wanted if candidate in timings)
    return [Row(candidate, found, timings[candidate]) for candidate, found in accuracies if found is not None]


def bundles_of(wanted: Iterable[Candidate], store: Store) -> Bundles:
    """What makes the bundle of each candidate that was judged."""
    drafts: dict[Graph, Bundle] = {}
    return {c: _maker(c, store, drafts) for c in wanted if store.accuracy(c) is not None}


def _maker(candidate: Candidate, store: Store, drafts: dict[Graph, Bundle]) -> Callable[[], Bundle]:
    """Makes the candidate's bundle when its turn comes; drafts are read once."""

    def make() -> Bundle:
        if candidate.graph not in drafts:
            found = store.draft(candidate.graph)
            assert found is not None, "kept before its banks were"
            drafts[candidate.graph] = found
        return with_bank(drafts[candidate.graph], store.bank(candidate))

    return make
