"""Does a threshold keep its promise? On good parts of each category under a folder, and on synthetic parts.

    python -m benchmarks.calibration DATA

For each category, banks are learned from some good parts at random and all others are scored once with each; random
splits of those scores into calibration and test are then arithmetic. Takes about half an hour on one core; features and
scores are kept in the cache. Writes calibration.json and calibration.md under `benchmarks/results/`.
"""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch

from benchmarks.accuracy.material import CACHE, Images
from benchmarks.calibration.judging import Indices, Values, good_parts, judge
from benchmarks.calibration.splits import Folded, Followed, Kept, follow, keep
from benchmarks.results_file import RESULTS, write_results
from lineward.calibration.cross_conformal import FOLDS, deal, proven_rate
from lineward.export.presets import PRESETS
from lineward.export.synthetic import write_dataset
from lineward.export.training import Recipe
from lineward.runtime.cli.console import ConsoleProgress, print_error
from lineward.runtime.conformal import split_conformal
from lineward.runtime.distinct import fingerprint, pixels_sha256
from lineward.runtime.errors import LinewardError

CATEGORIES = ("bottle", "screw", "transistor")
RECIPE = PRESETS["fast"]
SYNTHETIC = replace(RECIPE, size=128, rows=512)
SYNTHETIC_PARTS = 1500
BANKS, BANK_PARTS = 10, 100
SPLITS = 500
PROMISES = ((19, 0.05, None), (50, 0.05, None), (50, 0.1, None), (50, 0.1, 0.95), (60, 0.05, 0.95))
"""Calibration parts, false-reject rate, confidence."""
TAIL = (60, 0.005)
DRAWS, DRAWN = 20, 40
FOLDED_RATES = (0.05, 0.1)


@dataclass(frozen=True)
class Category:
    """All figures of a category."""

    name: str
    parts: int
    kept: list[Kept]
    followed: Followed
    folded: list[Folded]


def main(argv: Sequence[str] | None = None) -> int:
    """Measure every category and write the tables."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.calibration", description=__doc__.split("\n")[0])
    parser.add_argument("data", type=Path, help="a folder of MVTec AD categories")
    arguments = parser.parse_args(argv)
    try:
        folders = {c: arguments.data / c for c in CATEGORIES if (arguments.data / c).is_dir()}
        for missing in sorted(set(CATEGORIES) - set(folders)):
            print(f"SKIPPED: {missing}: not under {arguments.data}")
        progress = ConsoleProgress()
        found = [_measure(n, good_parts(f, RECIPE, progress), RECIPE, progress) for n, f in folders.items()]
        found.append(_measure("synthetic", good_parts(_synthetic(), SYNTHETIC, progress), SYNTHETIC, progress))
    except LinewardError as error:
        print_error(str(error))
        return 2
    _write(found)
    return 0


def _synthetic() -> Path:
    folder = CACHE / f"calibration-parts-{SYNTHETIC_PARTS}"
    if not (folder / "complete").exists():
        write_dataset(
            folder, train=SYNTHETIC_PARTS - 1, test_good=1, per_defect=1, size=SYNTHETIC.size, kinds=("chip",)
        )
        (folder / "complete").touch()
    return folder


def _measure(name: str, parts: Images, recipe: Recipe, progress: ConsoleProgress) -> Category:
    count = len(parts.samples)
    pixels = fingerprint(pixels_sha256(image) for image in parts.pixels)
    pools = []
    with progress.step(f"{name}: banks", BANKS) as advance:
        for seed in range(BANKS):
            order = np.random.default_rng(seed).permutation(count)
            pools.append(_kept(parts, order[:BANK_PARTS], order[BANK_PARTS:], replace(recipe, seed=seed), pixels))
            advance(seed + 1)
    rng = np.random.default_rng(0)
    kept = [keep(pools, sample, rate, confidence, SPLITS, rng) for sample, rate, confidence in PROMISES]
    followed = follow(pools, *TAIL, SPLITS, rng)
    return Category(name, count, kept, followed, _folded(name, parts, recipe, pixels, progress))


def _folded(name: str, parts: Images, recipe: Recipe, pixels: str, progress: ConsoleProgress) -> list[Folded]:
    rates: dict[float, list[float]] = {rate: [] for rate in FOLDED_RATES}
    with progress.step(f"{name}: draws in folds", DRAWS) as advance:
        for seed in range(DRAWS):
            order = np.random.default_rng(1000 + seed).permutation(len(parts.samples))
            drawn, others = order[:DRAWN], order[DRAWN:]
            seeded = replace(recipe, seed=seed)
            scores = np.empty(DRAWN)
            for fold in deal(DRAWN, FOLDS, seed):
                scores[fold] = _kept(parts, np.delete(drawn, fold), drawn[fold], seeded, pixels)
            fresh = _kept(parts, drawn, others, seeded, pixels)
            for rate, achieved in rates.items():
                achieved.append(float(np.mean(fresh > split_conformal(scores.tolist(), rate))))
            advance(seed + 1)
    return [
        Folded(
            DRAWN,
            rate,
            DRAWS,
            float(np.mean(achieved)),
            float(np.std(achieved, ddof=1) / np.sqrt(DRAWS)),
            max(achieved),
            proven_rate(DRAWN, FOLDS, rate),
        )
        for rate, achieved in rates.items()
    ]


def _kept(parts: Images, learn_from: Indices, score: Indices, recipe: Recipe, pixels: str) -> Values:
    """The scores, from the cache if they are there."""
    facts = repr((pixels, learn_from.tolist(), score.tolist(), recipe, torch.__version__))
    path = CACHE / "calibration" / f"{hashlib.sha256(facts.encode()).hexdigest()[:24]}.npy"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        np.save(path, judge(parts, learn_from.tolist(), score.tolist(), recipe))
    scores: Values = np.load(path)
    return scores


def _write(found: Sequence[Category]) -> None:
    recipes = {"categories": asdict(RECIPE), "synthetic": asdict(SYNTHETIC)}
    figures = {"recipes": recipes, "banks": BANKS, "bank_parts": BANK_PARTS, "found": [asdict(c) for c in found]}
    write_results("calibration", "python -m benchmarks.calibration DATA", figures)
    text = "\n".join(part for part in (_HEAD, _averages(found), _confidences(found), _folds(found), _tails(found)))
    (RESULTS / "calibration.md").write_text(text)
    print(text)


_HEAD = f"""\
# Does the threshold keep its promise?

{SPLITS} random splits a row: {BANKS} banks, each learned from {BANK_PARTS} good parts at random, and for each bank
{SPLITS // BANKS} splits of the other good parts. Splits given a bank are independent draws, so the p-values are exact:
a small one (below 0.01 divided by the number of rows, say) would speak against the promise. Recipe `fast`; synthetic
parts with 128 pixels and 512 rows. `calibration.json` has every figure.
"""


_CONFIDENCES = """\
## With confidence
Share of splits whose false-reject rate is above the bound, what is allowed, and the binomial test. First the true rate:
that of all parts the bank did not see, with calibration parts drawn from them with repetition. Then the rate counted on
the test parts: they are few, so that chance alone lifts some counts above the bound.

"""


def _averages(found: Sequence[Category]) -> str:
    rows = [
        (
            c.name,
            str(k.sample),
            _percent(k.promised),
            _percent(k.expected),
            f"{_percent(k.achieved)} ± {_percent(k.error)}",
            f"{k.p_achieved:.2f}",
        )
        for c in found
        for k in c.kept
        if k.confidence is None
    ]
    head = (
        "## On average\n"
        "Mean false-reject rate of the test parts over the splits, with its standard error, and the chance of such a\n"
        "mean or a higher one if the promise is kept. With 19 parts it is kept with nothing to spare.\n\n"
    )
    names = ("good parts of", "calibration parts", "promised, at most", "in theory", "achieved", "p")
    return head + _table(names, rows)


def _confidences(found: Sequence[Category]) -> str:
    rows = [
        (
            c.name,
            str(k.sample),
            f"{_percent(k.bound)} with {_percent(k.bound_confidence)}"
            + ("" if k.confidence else f", beside {_percent(k.promised)} on average"),
            f"{_percent(k.above)} (at most {_percent(k.allowed)}, p = {k.p:.2f})",
            f"{_percent(k.above_on_test)} ({_percent(k.allowed_on_test)}, p = {k.p_on_test:.2f})",
        )
        for c in found
        for k in c.kept
    ]
    names = ("good parts of", "calibration parts", "bound", "truly above", "above on the test parts")
    return _CONFIDENCES + _table(names, rows)


def _folds(found: Sequence[Category]) -> str:
    rows = [
        (
            c.name,
            _percent(f.promised),
            f"{_percent(f.achieved)} ± {_percent(f.error)}",
            _percent(f.greatest),
            _percent(f.proven),
        )
        for c in found
        for f in c.folded
    ]
    head = (
        f"## In folds\nCross-conformal, {DRAWS} draws of {DRAWN} images in {FOLDS} folds; the bank of all images of a\n"
        "draw judges all other good parts. What is proven is proven for the banks of the folds judging together.\n\n"
    )
    return head + _table(("good parts of", "asked for", "achieved", "worst draw", "proven"), rows)


def _tails(found: Sequence[Category]) -> str:
    rows = [
        (
            c.name,
            str(c.followed.sample),
            _percent(c.followed.promised),
            f"{_percent(c.followed.achieved)} ± {_percent(c.followed.error)}",
            _percent(c.followed.by_estimate),
            _percent(c.followed.refused),
        )
        for c in found
    ]
    head = (
        "## Extrapolated\n"
        "The threshold is the upper 95 % limit of the tail's level; beside it, the tail's own estimate.\n\n"
    )
    names = ("good parts of", "calibration parts", "asked for", "achieved", "by the estimate", "splits refused")
    return head + _table(names, rows)


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in (names, ["---"] * len(names), *rows)]
    return "\n".join(lines) + "\n"


def _percent(share: float) -> str:
    return f"{100 * share:.2f} %"


if __name__ == "__main__":
    sys.exit(main())
