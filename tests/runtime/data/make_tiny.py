"""Makes `tiny.lineward`, the bundle of the runtime's tests: `python tests/runtime/data/make_tiny.py`.

It is trained as every bundle is, but with a network of two convolutions whose weights are random.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from torch import Tensor, nn

from lineward.export import training
from lineward.export.backbones import Backbone
from lineward.export.synthetic import render_part
from lineward.runtime.images import write_png

TINY = Path(__file__).with_name("tiny.lineward")
SIZE = 64
RECIPE = training.Recipe(size=SIZE, levels=(8, 16), rows=64, false_reject_rate=0.2)
GOOD_PARTS = 16


class TinyNetwork(nn.Module):
    """Feature maps of six channels at strides 8 and 16."""

    def __init__(self) -> None:
        super().__init__()
        self.fine = nn.Conv2d(3, 6, 8, 8)
        self.coarse = nn.Conv2d(6, 6, 2, 2)
        random = np.random.RandomState(0)
        with torch.no_grad():
            for parameter in self.parameters():
                values = random.standard_normal(parameter.shape) / parameter[0].numel() ** 0.5
                parameter.copy_(torch.from_numpy(values))

    def forward(self, images: Tensor) -> dict[int, Tensor]:
        """Feature maps by stride of images, float32 [N, 3, H, W]."""
        fine = torch.relu(self.fine(images))
        return {8: fine, 16: torch.relu(self.coarse(fine))}


class _Quiet:
    def step(self, _name: str, _total: int) -> contextlib.AbstractContextManager[training.Advance]:
        return contextlib.nullcontext(lambda _done: None)


def make_tiny() -> bytes:
    """Train the tiny bundle and return its bytes."""
    half = (127.5, 127.5, 127.5)
    backbone = Backbone("tiny", TinyNetwork().eval(), half, half, "0" * 64)
    with (
        tempfile.TemporaryDirectory() as folder,
        mock.patch.object(training, "load_backbone", return_value=backbone),
        mock.patch.dict(os.environ, SOURCE_DATE_EPOCH="0"),
    ):
        paths = [Path(folder) / f"{seed:02d}.png" for seed in range(GOOD_PARTS)]
        for seed, path in enumerate(paths):
            write_png(path, render_part(seed, size=SIZE).image)
        return training.train(paths, "tiny part", recipe=RECIPE, progress=_Quiet())


if __name__ == "__main__":
    TINY.write_bytes(make_tiny())
    print(f"{TINY}: {TINY.stat().st_size} bytes")
