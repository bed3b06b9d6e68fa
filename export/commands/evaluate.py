"""Measure a bundle on labelled images: figures, a table by kind, and an HTML report with pictures."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lineward.calibration.escapes import Costs, Rate
from lineward.export.datasets import open_dataset
from lineward.export.evaluation import ByKind, Cheapest, Evaluation, curve_of, evaluate, with_costs
from lineward.export.report import write_report
from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.conformal import percent
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="a folder laid out as MVTec AD or LOCO AD: test/<kind>, ground_truth")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML report (default: beside the bundle)")
    parser.add_argument(
        "--costs",
        type=float,
        nargs=2,
        metavar=("FALSE_REJECT", "ESCAPE"),
        help="what each wrong verdict costs; adds the threshold of the least expected cost",
    )
    parser.add_argument(
        "--defect-share", type=float, default=0.01, help="of the line's parts that are defective (default: %(default)s)"
    )


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print; the exit code says whether that worked, not how well the bundle does."""
    costs = _costs(arguments)
    inspector = Inspector(read_bundle(arguments.bundle))
    samples = open_dataset(arguments.data).test
    with ConsoleProgress().step("evaluate images", len(samples)) as advance:
        evaluation = evaluate(inspector, samples, advance)
    if costs:
        evaluation = with_costs(evaluation, costs)
    report = arguments.report or arguments.bundle.with_suffix(".html")
    write_report(report, inspector, evaluation)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures(evaluation), indent=2) + "\n")
    _print(evaluation)
    print(f"report: {report.resolve()}")
    return PASSED


def _costs(arguments: argparse.Namespace) -> Costs | None:
    if not arguments.costs:
        return None
    false_reject, escape = arguments.costs
    return Costs(false_reject, escape, arguments.defect_share)


def figures(evaluation: Evaluation) -> dict[str, Any]:
    """The figures as plain numbers, those by kind nested, where there are any; None where the data cannot give one."""
    c = evaluation.confusion
    return {
        "image_auroc": evaluation.image_auroc,
        "pixel_auroc": evaluation.pixel_auroc,
        "aupro": evaluation.aupro,
        "f1": evaluation.f1,
        "f1_threshold": evaluation.f1_threshold,
        "threshold": evaluation.threshold,
        "true_pass": c.true_pass,
        "false_reject": c.false_reject,
        "escape": c.escape,
        "true_reject": c.true_reject,
        "images": len(evaluation.results),
        "false_reject_rate": _rate(evaluation.false_rejects),
        "escape_rate": _rate(evaluation.escapes),
        "curve": [asdict(point) for point in curve_of(evaluation)],
        **({"cheapest": asdict(evaluation.cheapest)} if evaluation.cheapest else {}),
        **({"by_kind": asdict(evaluation.by_kind)} if evaluation.by_kind else {}),
    }


def _print(evaluation: Evaluation) -> None:
    images = Counter(r.sample.kind for r in evaluation.results)
    rejected = Counter(r.sample.kind for r in evaluation.results if r.verdict is Verdict.REJECT)
    rows = [(kind, str(n), str(n - rejected[kind]), str(rejected[kind])) for kind, n in images.items()]
    print_table(f"at the threshold {evaluation.threshold:.4f}", ("kind", "images", "passed", "rejected"), rows)
    rates = {"good parts rejected": evaluation.false_rejects, "defects passed": evaluation.escapes}
    intervals = [(name, _in_words(rate)) for name, rate in rates.items() if rate]
    print_table("", ("rate", "with exact interval"), intervals)
    if evaluation.cheapest:
        _print_cheapest(evaluation.cheapest)
    named = {"image AUROC": evaluation.image_auroc, "pixel AUROC": evaluation.pixel_auroc,
             "AUPRO@0.3": evaluation.aupro, "F1 (best threshold)": evaluation.f1}  # fmt: skip
    print_table("", ("figure", "value"), [(name, _number(value)) for name, value in named.items()])
    if evaluation.by_kind:
        _print_by_kind(evaluation.by_kind)


def _print_cheapest(cheapest: Cheapest) -> None:
    best, costs = cheapest.best, cheapest.costs
    given = (
        f"a false reject costs {costs.false_reject:g}, an escape {costs.escape:g}, "
        f"{percent(costs.defect_share)} of the parts are defective"
    )
    rows = [
        ("given", given),
        ("threshold", f"{best.threshold:.4f}: {best.false_rejects} false rejects, {best.escapes} escapes"),
        ("cost", f"{cheapest.cost:.4g}; {cheapest.cost_of_bundle:.4g} at the bundle's own"),
    ]
    print_table("least expected cost a part", ("", ""), rows)


def _rate(rate: Rate | None) -> dict[str, Any] | None:
    return None if rate is None else {"share": rate.share, **asdict(rate)}


def _in_words(rate: Rate) -> str:
    return (
        f"{rate.counted} of {rate.of}: {percent(rate.share)}, with {percent(rate.confidence)} confidence "
        f"from {percent(rate.lower)} to {percent(rate.upper)}"
    )


def _print_by_kind(by_kind: ByKind) -> None:
    rows = [*by_kind.kinds.items(), ("mean", by_kind.mean)]
    print_table(
        "each kind of defect against all good parts",
        ("kind", "image AUROC", "sPRO@0.05"),
        [(name, _number(figures.image_auroc), _number(figures.spro)) for name, figures in rows],
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
