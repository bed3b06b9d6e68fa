"""What the offline tests share: synthetic parts, the default backbone, and bundles trained on them."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from lineward.export.backbones import Backbone, load_backbone
from lineward.export.synthetic import render_part, write_dataset
from lineward.export.training import Advance, Progress, Recipe, train
from lineward.runtime.bundle import Bundle, decode_bundle
from lineward.runtime.images import write_png


class Quiet:
    """Progress that nobody watches."""

    def step(self, _name: str, _total: int) -> contextlib.AbstractContextManager[Advance]:
        return contextlib.nullcontext(lambda _done: None)


@pytest.fixture(scope="session")
def quiet() -> Progress:
    return Quiet()


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    return load_backbone()


@pytest.fixture(scope="session")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Synthetic parts of 128 pixels, laid out as MVTec AD."""
    root = tmp_path_factory.mktemp("data") / "parts"
    write_dataset(root, train=40, test_good=4, per_defect=1, size=128)
    return root


@pytest.fixture(scope="session")
def trained_bytes(parts: Path, quiet: Progress) -> bytes:
    recipe = Recipe(size=128, rows=256, false_reject_rate=0.2)
    return train(sorted((parts / "train" / "good").iterdir()), "parts", recipe=recipe, progress=quiet)


@pytest.fixture(scope="session")
def trained(trained_bytes: bytes) -> Bundle:
    """A bundle trained on the good parts with the default recipe, but for sizes."""
    return decode_bundle(trained_bytes, "parts.lineward")


@pytest.fixture(scope="session")
def good_images(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """A dozen small good images: enough for a training run in a second or two."""
    folder = tmp_path_factory.mktemp("good")
    paths = [folder / f"{seed:02d}.png" for seed in range(12)]
    for seed, path in enumerate(paths):
        write_png(path, render_part(seed, size=64).image)
    return paths
