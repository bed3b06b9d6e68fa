"""Measure a bundle on labelled images: figures, a table by kind, and an HTML report with pictures."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lineward.export.datasets import open_dataset
from lineward.export.evaluation import ByKind, Evaluation, evaluate
from lineward.export.report import write_report
from lineward.runtime.bundle import read_bundle
from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import ConsoleProgress, print_table
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument("bundle", type=Path)
    parser.add_argument("data", type=Path, help="a folder laid out as MVTec AD or LOCO AD: test/<kind>, ground_truth")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    parser.add_argument("--report", type=Path, metavar="FILE", help="HTML report (default: beside the bundle)")


def run(arguments: argparse.Namespace) -> int:
    """Evaluate and print; the exit code says whether that worked, not how well the bundle does."""
    inspector = Inspector(read_bundle(arguments.bundle))
    samples = open_dataset(arguments.data).test
    with ConsoleProgress().step("evaluate images", len(samples)) as advance:
        evaluation = evaluate(inspector, samples, advance)
    report = arguments.report or arguments.bundle.with_suffix(".html")
    write_report(report, inspector, evaluation)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures(evaluation), indent=2) + "\n")
    _print(evaluation)
    print(f"report: {report.resolve()}")
    return PASSED


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
        **({"by_kind": asdict(evaluation.by_kind)} if evaluation.by_kind else {}),
    }


def _print(evaluation: Evaluation) -> None:
    images = Counter(r.sample.kind for r in evaluation.results)
    rejected = Counter(r.sample.kind for r in evaluation.results if r.verdict is Verdict.REJECT)
    rows = [(kind, str(n), str(n - rejected[kind]), str(rejected[kind])) for kind, n in images.items()]
    print_table(f"at the threshold {evaluation.threshold:.4f}", ("kind", "images", "passed", "rejected"), rows)
    named = {"image AUROC": evaluation.image_auroc, "pixel AUROC": evaluation.pixel_auroc,
             "AUPRO@0.3": evaluation.aupro, "F1 (best threshold)": evaluation.f1}  # fmt: skip
    print_table("", ("figure", "value"), [(name, _number(value)) for name, value in named.items()])
    if evaluation.by_kind:
        _print_by_kind(evaluation.by_kind)


def _print_by_kind(by_kind: ByKind) -> None:
    rows = [*by_kind.kinds.items(), ("mean", by_kind.mean)]
    print_table(
        "each kind of defect against all good parts",
        ("kind", "image AUROC", "sPRO@0.05"),
        [(name, _number(figures.image_auroc), _number(figures.spro)) for name, figures in rows],
    )


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
