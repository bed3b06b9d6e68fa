"""The search: every candidate judged once, timed once, and kept."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace

from lineward.export.bundle_bank import with_bank
from lineward.export.training import Progress, Recipe
from lineward.export.tuning.judges import Panel
from lineward.export.tuning.judging import draft, judge_banks
from lineward.export.tuning.store import Store, device_key
from lineward.export.tuning.table import Candidate, Row, Timing, worth_timing
from lineward.export.tuning.timing import Bundles, probe, time_in_full
from lineward.runtime.bench.measure import Plan, Say
from lineward.runtime.bench.triggers import Clock
from lineward.runtime.bundle import Bundle
from lineward.runtime.errors import TrainingError

SIZES = (192, 256, 320, 384)
BANKS = (512, 1024, 2048, 4096, 8192, 16384)


def candidates(sizes: Sequence[int], banks: Sequence[int], images: int, recipe: Recipe) -> list[Candidate]:
    """Every pair of an input size and a bank that the images can fill.

    Args:
        sizes: sides of the input, in pixels.
        banks: rows.
        images: good images that build the bank.
        recipe: gives the feature levels, and the tiles of an image.

    Raises:
        TrainingError: the images can fill none.
    """
    finest, tiles = min(recipe.levels), math.prod(recipe.tiles or (1,))
    found = [Candidate(s, rows) for s in sorted(set(sizes)) for rows in sorted(set(banks))
             if rows <= images * tiles * (s // finest) ** 2]  # fmt: skip
    if not found:
        raise TrainingError(
            f"{images} good images have fewer patches than the smallest bank has rows, {min(banks)}",
            do="pass more images, or smaller banks: --banks",
        )
    return found


def judge(
    wanted: Sequence[Candidate], panel: Panel, product: str, recipe: Recipe, store: Store, progress: Progress
) -> None:
    """Judge the candidates that are not judged yet, an input size at a time, and keep what was found."""
    for size in dict.fromkeys(candidate.size for candidate in wanted):
        banks = [c.rows for c in wanted if c.size == size and store.accuracy(c) is None]
        if not banks:
            continue
        of_size = replace(recipe, size=size, rows=min(c.rows for c in wanted if c.size == size))
        bundle = store.draft(size)
        if bundle is None:
            bundle = draft(panel, product, of_size, progress)
            store.keep_draft(size, bundle)
        for rows, judged in judge_banks(bundle, panel, of_size, banks, progress):
            store.keep_judged(Candidate(size, rows), judged)


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
    wanted = [candidate for candidate in wanted if store.accuracy(candidate) is not None]
    device = device_key(plan)
    timings = {} if again else store.timings(device)
    drafts: dict[int, Bundle] = {}
    new = [candidate for candidate in wanted if candidate not in timings]
    if new:
        timings |= probe(_bundles(new, store, drafts), plan, say, clock)
        store.keep_timings(device, timings)
    worth = worth_timing(_rows(wanted, store, timings))
    new = [candidate for candidate in worth if not timings[candidate].p99]
    if new:
        timings |= time_in_full(_bundles(new, store, drafts), timings, plan, say, clock)
        store.keep_timings(device, timings)
    return _rows(wanted, store, timings)


def _rows(wanted: Sequence[Candidate], store: Store, timings: dict[Candidate, Timing]) -> list[Row]:
    accuracies = ((candidate, store.accuracy(candidate)) for candidate in wanted)
    return [Row(candidate, found, timings[candidate]) for candidate, found in accuracies if found is not None]


def _bundles(wanted: Sequence[Candidate], store: Store, drafts: dict[int, Bundle]) -> Bundles:
    return {candidate: _maker(candidate, store, drafts) for candidate in wanted}


def _maker(candidate: Candidate, store: Store, drafts: dict[int, Bundle]) -> Callable[[], Bundle]:
    """Makes the candidate's bundle when its turn comes; drafts are read once."""

    def make() -> Bundle:
        if candidate.size not in drafts:
            found = store.draft(candidate.size)
            assert found is not None, "kept before its banks were"
            drafts[candidate.size] = found
        return with_bank(drafts[candidate.size], store.bank(candidate))

    return make
