"""The Markdown page of the tables: what was found and what was not, both tables, and what to know when reading them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.accuracy.categories import DataSet
from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.runs import Run
from benchmarks.accuracy.systems import System
from benchmarks.accuracy.tabulate import further_table, main_table
from lineward.runtime.images import read_image

_ORIGINALS = {"MVTec AD": (700, 1024), "MVTec LOCO AD": (800, 1700)}
"""Least and greatest side of a published image, in pixels."""

_READING = """\
- The figures beneath ours are the paper's as printed ("Unsupervised anomaly detection algorithm based on improved
  PatchCore", Tab. 2 and Tab. 3). They were read by OCR, and the heads of the columns are reconstructed. The paper's
  means do not all follow from its rows: PatchCore's image AUROC in Tab. 2 has a row mean of 0.862, and 0.82 is printed.
  Nor are they means over the categories found here.
- The paper's backbone and sizes differ from ours, so compare the order of the systems rather than the figures.
- The paper's second figure is an "anomalous pixel-level AUROC" that it does not define; ours is over all pixels of all
  test images, but for defective ones without masks, at the size of the images.
- Image scores are each system's own, as its module under `benchmarks/accuracy/systems/` says. Every map is upsampled
  and smoothed alike.
- Lineward holds out a tenth of the training images, or as many as its false-reject rate needs, for its threshold; the
  others learn from all of them.
- CutPaste trains a copy of the same backbone on pixels, at an input size of its own, named below.
- The settings of CutPaste and of Lineward were chosen by their figures on test images of bottle, screw and transistor,
  so their figures there are a little too good.
- Seconds are those of learning and of scoring all test images, on the machine that the JSON file names. Where a system
  takes the backbone's features ready from the material, they do not count the backbone; Lineward's count everything,
  from image files to a packed and checked bundle.
"""


def write_document(
    path: Path, data_sets: Sequence[DataSet], runs: Sequence[Run], setting: Setting, systems: Mapping[str, System]
) -> None:
    """Write the page; it shows the plot that lies beside it, of the same name with .svg."""
    seeds = ", ".join(str(seed) for seed in sorted({run.seed for run in runs}))
    parts = [
        "# The paper's tables with our data, features and metrics\n",
        f"Mean ± sample standard deviation over seeds {seeds}; beneath it the paper's figures as printed. Machine, "
        f"versions, date and every run: `{path.stem}.json`; one line a run: `{path.stem}.csv`.\n",
        f"![Image AUROC by category and system]({path.stem}.svg)\n",
    ]
    for data_set in data_sets:
        parts += [f"## {data_set.name}\n", _provenance(data_set)]
        parts += [table(data_set, runs, [*systems]).markdown() for table in (main_table, further_table)]
    parts += ["## How to read them\n", _shared(setting) + _READING, "## The systems\n", _listed(systems)]
    path.write_text("\n".join(parts))


def _provenance(data_set: DataSet) -> str:
    """Where the data are from, what of them was found, and whether they are the published images."""
    shapes = {read_image(dataset.test[0].path).shape[:2] for dataset in data_set.found.values()}
    text = f"Images of {', '.join(f'{shape[1]}×{shape[0]}' for shape in sorted(shapes))} pixels"
    if data_set.name in _ORIGINALS:
        least, greatest = _ORIGINALS[data_set.name]
        if max(side for shape in shapes for side in shape) < least:
            text += f", copies resized from the originals, whose sides have {least} to {greatest}"
        text = f"{data_set.name}: MVTec Software GmbH, CC BY-NC-SA 4.0. {text}"
    text += f". Found: {', '.join(data_set.found)}."
    return text + (f" **Not found: {', '.join(data_set.missing)}.**\n" if data_set.missing else "\n")


def _shared(setting: Setting) -> str:
    levels = " and ".join(str(level) for level in setting.levels)
    return (
        f"- Systems that look at backbone features have those of {setting.backbone}, trained on ImageNet, at strides "
        f"{levels} of an input of {setting.size}×{setting.size} pixels: {setting.side**2} patches an image.\n"
    )


def _listed(systems: Mapping[str, System]) -> str:
    return "".join(f"- {name}: `{system!r}`\n" for name, system in systems.items())
