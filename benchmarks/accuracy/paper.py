"""The paper's two tables, quoted as printed: "Unsupervised anomaly detection algorithm based on improved PatchCore".

The text was read by OCR, and the heads of the columns are reconstructed. The means do not all follow from the rows
(PatchCore's image AUROC in Tab. 2 has a row mean of 0.862, and 0.82 is printed); none is corrected here.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

SYSTEMS = ("PatchCore", "improved PatchCore", "PaDiM", "CutPaste")
"""The columns of both tables."""

MEAN = "mean"
"""The name of each table's last row."""


@dataclass(frozen=True)
class PaperTable:
    """A table of the paper.

    Attributes:
        title: its number and subject.
        rows: by category, the cells of `SYSTEMS`: "image AUROC, anomalous pixel-level AUROC".
    """

    title: str
    rows: Mapping[str, tuple[str, ...]]

    def cell(self, category: str, system: str) -> str | None:
        """A cell as printed, of a category by the name of its folder or of the mean; None where there is none."""
        row = self.rows.get(category.replace("_", " "))
        return row[SYSTEMS.index(system)] if row and system in SYSTEMS else None

    def image_auroc(self, category: str, system: str) -> float | None:
        """The first figure of a cell."""
        cell = self.cell(category, system)
        return float(cell.partition(",")[0]) if cell else None


LOCO = PaperTable(
    "Tab. 2, MVTec LOCO AD",
    {
        "breakfast box": ("0.80, 0.80", "0.83, 0.80", "0.78, 0.78", "0.70, –"),
        "pushpins": ("0.90, 0.88", "0.91, 0.89", "0.59, 0.87", "0.68, –"),
        "screw bag": ("0.80, 0.78", "0.85, 0.84", "0.60, 0.82", "0.80, –"),
        "splicing connectors": ("0.86, 0.83", "0.88, 0.83", "0.59, 0.82", "0.66, –"),
        "juice bottle": ("0.95, 0.92", "0.95, 0.92", "0.82, 0.84", "0.78, –"),
        MEAN: ("0.82, 0.82", "0.88, 0.86", "0.64, 0.83", "0.71, –"),
    },
)

MVTEC_AD = PaperTable(
    "Tab. 3, MVTec AD",
    {
        "bottle": ("0.98, 0.98", "0.98, 0.98", "0.98, 0.95", "0.98, –"),
        "cable": ("0.98, 0.97", "0.97, 0.96", "0.97, 0.89", "0.91, –"),
        "capsule": ("0.99, 0.99", "0.99, 0.99", "0.98, 0.94", "0.97, –"),
        "grid": ("0.98, 0.98", "0.94, 0.94", "0.97, 0.95", "0.98, –"),
        "metal nut": ("0.98, 0.98", "0.98, 0.97", "0.97, 0.86", "0.93, –"),
        "pill": ("0.98, 0.98", "0.96, 0.96", "0.96, 0.93", "0.96, –"),
        "screw": ("0.99, 0.99", "0.98, 0.97", "0.99, 0.94", "0.97, –"),
        "tile": ("0.96, 0.94", "0.95, 0.95", "0.94, 0.86", "0.91, –"),
        "toothbrush": ("0.99, 0.98", "0.95, 0.95", "0.99, 0.93", "0.98, –"),
        "transistor": ("0.96, 0.93", "0.95, 0.93", "0.97, 0.98", "0.93, –"),
        "wood": ("0.95, 0.94", "0.95, 0.93", "0.95, 0.98", "0.96, –"),
        "zipper": ("0.99, 0.99", "0.99, 0.98", "0.98, 0.98", "0.99, –"),
        MEAN: ("0.98, 0.97", "0.97, 0.96", "0.97, 0.94", "0.96, –"),
    },
)
