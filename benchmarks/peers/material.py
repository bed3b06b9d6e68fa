"""What all contenders get: a trained bundle, unit embeddings of good patches, and a camera frame."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lineward.export.bundle_bank import with_bank
from lineward.export.presets import PRESETS
from lineward.export.synthetic import render_part, write_dataset
from lineward.export.training import Recipe, train
from lineward.runtime.bundle import EMBEDDING, Bundle, decode_bundle, encode_bundle
from lineward.runtime.cli.console import ConsoleProgress
from lineward.runtime.engines.onnxruntime import EmbeddingSession
from lineward.runtime.images import find_images, read_image
from lineward.runtime.preprocessing import preprocess

Rows = NDArray[np.float32]

IMAGES = 66
"""Good images; their 1,024 patches each are more than the largest bank has rows."""
FRAME = 1024
SIZE = 256
RECIPE = Recipe(size=SIZE, rows=2048, position=0.0, false_reject_rate=0.2)
"""1,024 patches of 153 dimensions."""


@dataclass(frozen=True)
class Material:
    """Files, since contenders are processes of their own.

    Attributes:
        folder: holds what is written here.
        bundle: trained with `RECIPE`.
        queries: embeddings of one image, float32 [1024, 153].
        pool: embeddings of all good images in a random order, float32 [67584, 153]; a bank is its beginning.
    """

    folder: Path
    bundle: Bundle
    queries: Path
    pool: Path

    def bank(self, rows: int) -> Rows:
        """The first rows of the pool."""
        return np.ascontiguousarray(np.load(self.pool, mmap_mode="r")[:rows])

    def ours(self, rows: int) -> Path:
        """Our bundle with such a bank."""
        path = self.folder / f"similarity-{rows}.lineward"
        bundle = with_bank(self.bundle, self.bank(rows))
        path.write_bytes(encode_bundle(bundle.manifest, bundle.members))
        return path

    def bank_file(self, rows: int) -> Path:
        """Such a bank as a file."""
        path = self.folder / f"bank-{rows}.npy"
        np.save(path, self.bank(rows))
        return path


def make_material(folder: Path) -> Material:
    """Train the bundle and embed its images."""
    write_dataset(folder / "parts", train=IMAGES, test_good=0, per_defect=0)
    paths = find_images([folder / "parts"])
    bundle = decode_bundle(train(paths, "parts", recipe=RECIPE, progress=ConsoleProgress()), "parts")
    session = EmbeddingSession(bundle.members[EMBEDDING], bundle.manifest.grid)
    spec = bundle.manifest.preprocessing
    embedded = [session.embed(preprocess(read_image(path), spec)[np.newaxis])[0] for path in paths]
    queries, pool = folder / "queries.npy", folder / "pool.npy"
    seen = preprocess(render_part(1 << 40, "stain").image, spec)
    np.save(queries, session.embed(seen[np.newaxis])[0])
    np.save(pool, np.random.RandomState(0).permutation(np.concatenate(embedded)))
    return Material(folder, bundle, queries, pool)


def preset_bundle(folder: Path, preset: str, size: int | None = None) -> Path:
    """A bundle of one of the presets, trained on the same parts, at another input size where one is given."""
    recipe = PRESETS[preset]
    fields = {name: getattr(recipe, name) for name in recipe.__dataclass_fields__}
    changed = Recipe(**{**fields, "false_reject_rate": 0.2, "size": size or recipe.size})
    path = folder / f"{preset}-{changed.size}.lineward"
    path.write_bytes(train(find_images([folder / "parts"]), "parts", recipe=changed, progress=ConsoleProgress()))
    return path


def write_frame(folder: Path) -> Path:
    """A frame as a camera delivers it, uint8 [1024, 1024, 3]."""
    path = folder / "frame.npy"
    np.save(path, render_part(1 << 41, size=FRAME).image)
    return path
