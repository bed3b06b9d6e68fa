"""The images that candidates are judged on: labelled ones where there are both kinds, else planted defects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineward.export.backbones import sha256_of
from lineward.export.datasets import Dataset, Sample, read_mask
from lineward.export.held_out import Promise, plan_calibration
from lineward.export.planting import KINDS, plant
from lineward.runtime.images import read_image
from lineward.runtime.preprocessing import Frame

MOST_PLANTED = 40
"""Good images at most that defects are planted on, one of each kind."""


@dataclass(frozen=True)
class Judge:
    """An image that candidates are judged on.

    Attributes:
        sample: a labelled image, or the good image that a defect is planted on.
        planted: kind of the planted defect; "" for none.
        seed: of place, size and strength of the planted defect.
    """

    sample: Sample
    planted: str = ""
    seed: int = 0

    @property
    def defective(self) -> bool:
        """Whether it is to be rejected."""
        return bool(self.planted) or self.sample.defective

    def read(self) -> tuple[Frame, NDArray[np.bool_] | None]:
        """The image, and its defective pixels, bool [H, W]; None for a defective one without a mask.

        Raises:
            ImageError: image or mask cannot be read.
        """
        frame = read_image(self.sample.path)
        if self.planted:
            return plant(frame, self.planted, np.random.default_rng(self.seed))
        if self.sample.defective and not self.sample.masks:
            return frame, None
        return frame, read_mask(self.sample, frame.shape[:2])


@dataclass(frozen=True)
class Panel:
    """Who builds the bank, and who judges it.

    Attributes:
        bank: good images that build the banks.
        judges: good and defective images that the banks have not seen.
        evidence: in words, what the judges are.
    """

    bank: tuple[Path, ...]
    judges: tuple[Judge, ...]
    evidence: str

    @property
    def good(self) -> list[Path]:
        """The good judges."""
        return [judge.sample.path for judge in self.judges if not judge.defective]

    def files(self) -> list[str]:
        """SHA-256 of every file that accuracy depends on, each with its part in it."""
        judged = [
            f"{judge.sample.kind} {judge.planted} {judge.seed} " + " ".join(map(sha256_of, _files(judge.sample)))
            for judge in self.judges
        ]
        return ["bank", *map(sha256_of, self.bank), "judges", *judged]


def seat(dataset: Dataset, images: Sequence[Path], promise: Promise) -> Panel:
    """Decide who builds the bank, as the training does, and who judges it.

    Args:
        dataset: labelled images, if it has any.
        images: good images to learn from.
        promise: what the threshold is to keep; it decides how many images the training holds out.

    Raises:
        CalibrationError: as the training: too few different images for the promise.
        ImageError: an image cannot be read.
    """
    plan = plan_calibration(images, dataset.validation, promise)
    learned, apart = ([path for path, _ in chosen] for chosen in (plan.bank, plan.held_out))
    if len({sample.defective for sample in dataset.test}) == 2:
        defects = sum(sample.defective for sample in dataset.test)
        evidence = f"{len(dataset.test) - defects} good and {defects} defective labelled images"
        return Panel(tuple(learned), tuple(Judge(sample) for sample in dataset.test), evidence)
    if plan.folds:
        fold = set(plan.folds[0].tolist())
        apart = [path for i, path in enumerate(learned) if i in fold]
        learned = [path for i, path in enumerate(learned) if i not in fold]
    good = [Judge(Sample(path, "good")) for path in apart]
    defective = [
        Judge(judge.sample, kind, len(KINDS) * number + index)
        for number, judge in enumerate(good[:MOST_PLANTED])
        for index, kind in enumerate(KINDS)
    ]
    evidence = f"{len(good)} good images and {len(defective)} SYNTHETIC defects planted on them ({', '.join(KINDS)})"
    return Panel(tuple(learned), (*good, *defective), evidence)


def _files(sample: Sample) -> tuple[Path, ...]:
    return (sample.path, *sample.masks)
