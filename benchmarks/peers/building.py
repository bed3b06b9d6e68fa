"""Ways to build a bank from the same patches: time, and how well the bank covers patches that it was not built from."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.peers.workers import THREADS, Call, Contender

Rows = NDArray[np.float32]

PATCHES = 24 * 1024
HELD_OUT = 4 * 1024
BANK = 1024
OURS = "Lineward: k-means half, farthest-point half"


def contenders(pool: Path) -> dict[str, Contender]:
    """All of them, ours first; `pool` holds unit rows, .npy."""
    ways = {
        OURS: lineward,
        "greedy k-centre (anomalib's KCenterGreedy)": k_centre_greedy,
        "MiniBatchKMeans (scikit-learn)": mini_batch_kmeans,
        "k-means (faiss, spherical)": faiss_kmeans,
    }
    return {name: Contender(covering, (way, pool), warm=False) for name, way in ways.items()}


def covering(way: Callable[[Rows], Callable[[], Rows]], pool: Path) -> Call:
    """Builds a bank; what it gives is how far patches held out are from it: mean and greatest 1 - cosine."""
    rows = np.load(pool, mmap_mode="r")
    build = way(np.ascontiguousarray(rows[:PATCHES]))
    held_out = np.ascontiguousarray(rows[PATCHES : PATCHES + HELD_OUT])

    def call() -> tuple[float, float]:
        bank = build()
        bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
        apart = 1 - (held_out @ bank.T).max(1)
        return float(apart.mean()), float(apart.max())

    return call


def lineward(patches: Rows) -> Callable[[], Rows]:
    """Ours."""
    from threadpoolctl import threadpool_limits

    from lineward.export.bank import build_bank

    threadpool_limits(THREADS)
    images = patches.reshape(-1, 1024, patches.shape[1])
    return lambda: build_bank(lambda: images, len(images), images.shape[1], BANK)


def k_centre_greedy(patches: Rows) -> Callable[[], Rows]:
    """PatchCore's choice, as anomalib has it."""
    import torch
    from anomalib.models.components import KCenterGreedy

    torch.set_num_threads(THREADS)
    given = torch.from_numpy(patches)

    def build() -> Rows:
        torch.manual_seed(0)
        with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):
            return np.asarray(KCenterGreedy(given, BANK / len(given)).sample_coreset().numpy())

    return build


def mini_batch_kmeans(patches: Rows) -> Callable[[], Rows]:
    """scikit-learn's, once from its own start."""
    from sklearn.cluster import MiniBatchKMeans
    from threadpoolctl import threadpool_limits

    threadpool_limits(THREADS)

    def build() -> Rows:
        found = MiniBatchKMeans(BANK, batch_size=4096, n_init=1, random_state=0).fit(patches)
        return np.asarray(found.cluster_centers_, np.float32)

    return build


def faiss_kmeans(patches: Rows) -> Callable[[], Rows]:
    """faiss' with its own number of rounds."""
    import faiss

    faiss.omp_set_num_threads(THREADS)

    def build() -> Rows:
        found = faiss.Kmeans(patches.shape[1], BANK, spherical=True, seed=1, min_points_per_centroid=1)
        found.train(patches)
        return np.asarray(found.centroids)

    return build
