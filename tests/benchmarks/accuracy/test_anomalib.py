"""The rivals compared with anomalib's own models, from features to maps, at the size that the benchmark takes."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pytest
import torch

from benchmarks.accuracy.material import Setting
from benchmarks.accuracy.measure import Scores, anomaly_maps
from benchmarks.accuracy.systems import padim
from benchmarks.accuracy.systems.padim import PaDiM
from benchmarks.accuracy.systems.patchcore import PatchCore, k_centre
from tests.benchmarks.accuracy.test_patchcore import Features, Recorder, features, material

pytest.importorskip("anomalib", reason="anomalib is not installed, so the rivals are not compared with its models")

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # anomalib's imports warn of names that others will drop
    from anomalib.models.image.padim.torch_model import PadimModel
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

SETTING = Setting(size=256, levels=(8,))
SIDE, CHANNELS = SETTING.side, 12
IMAGES = torch.zeros(1, 3, SETTING.size, SETTING.size)


class Given(torch.nn.Module):
    """In place of a backbone: features that are given, whatever the images."""

    def __init__(self, patches: Features) -> None:
        super().__init__()
        self.level = torch.from_numpy(patches.reshape(-1, SIDE, SIDE, CHANNELS)).permute(0, 3, 1, 2)

    def forward(self, _: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"layer1": self.level}


@pytest.fixture(scope="module")
def good() -> Features:
    return features(24, CHANNELS, setting=SETTING) @ mixing()


@pytest.fixture(scope="module")
def seen() -> Features:
    return 1.5 * features(4, CHANNELS, seed=1, setting=SETTING) @ mixing() + np.float32(0.1)


def mixing() -> Features:
    """Channels that depend on each other, and are of sizes from 0.01 to 0.5: at these, the re-weighting is felt."""
    mixed = np.random.default_rng(2).normal(size=(CHANNELS, CHANNELS)) * np.geomspace(0.01, 0.5, CHANNELS)
    return mixed.astype(np.float32)


@pytest.fixture(scope="module", params=[5, 200], ids=lambda rows: f"{rows} rows")
def rows(request: pytest.FixtureRequest) -> int:
    return request.param


@pytest.fixture(scope="module")
def their_patchcore(good: Features, rows: int) -> Callable[[int], PatchcoreModel]:
    """anomalib's PatchCore with our bank."""
    points = good.reshape(-1, CHANNELS)
    bank = points[k_centre(points, rows, np.random.default_rng(0))]

    def model(neighbours: int) -> PatchcoreModel:
        made = PatchcoreModel(["layer1"], "resnet18", pre_trained=False, num_neighbors=neighbours).eval()
        made.memory_bank, made.feature_pooler = torch.from_numpy(bank), torch.nn.Identity()
        return made

    return model


@pytest.fixture(scope="module")
def our_patchcore(good: Features, seen: Features, rows: int) -> Callable[[bool], Scores]:
    return lambda reweighted: PatchCore(rows, reweighted)(material(good, seen, SETTING), 0, Recorder())


def test_patchcore_patch_scores(their_patchcore, our_patchcore, seen: Features):
    theirs, _ = their_patchcore(9).nearest_neighbors(torch.from_numpy(seen.reshape(-1, CHANNELS)), 1)
    np.testing.assert_allclose(our_patchcore(False).patches.ravel(), theirs, rtol=1e-4)


@pytest.mark.parametrize(("neighbours", "reweighted"), [(1, False), (9, True)], ids=["greatest", "re-weighted"])
def test_patchcore_image_scores(their_patchcore, our_patchcore, seen: Features, neighbours: int, reweighted: bool):
    model = their_patchcore(neighbours)
    model.feature_extractor = Given(seen)
    np.testing.assert_allclose(our_patchcore(reweighted).images, model(IMAGES).pred_score, rtol=1e-4)


@pytest.fixture(scope="module")
def their_padim(good: Features, seen: Features):
    """What anomalib's PaDiM says of the test images, and the channels that it looks at."""
    torch.manual_seed(0)
    model = PadimModel("resnet18", ["layer1"], pre_trained=False, n_features=8)
    model.idx = torch.randperm(CHANNELS)[:8]
    model.feature_extractor = Given(good)
    model.train()(IMAGES)
    model.fit()
    model.feature_extractor = Given(seen)
    distances = model.anomaly_map_generator.compute_distance(
        model.generate_embedding(model.feature_extractor(IMAGES)), [model.gaussian.mean, model.gaussian.inv_covariance]
    )
    return distances, model.eval()(IMAGES), model.idx.numpy()


# Where anomalib adds 0.01 and another 1e-5 to the diagonal, the paper and we add 0.01.
@pytest.mark.parametrize(
    ("epsilon", "allowed"), [(0.01001, 1e-4), (0.01, 1e-3)], ids=["same statistics", "the paper's"]
)
def test_padim(monkeypatch: pytest.MonkeyPatch, their_padim, good, seen, epsilon: float, allowed: float):
    distances, said, kept = their_padim
    monkeypatch.setattr(padim, "EPSILON", epsilon)
    ours = padim.mahalanobis(good, seen, kept)
    np.testing.assert_allclose(ours, distances.reshape(len(seen), -1), rtol=allowed)
    maps = np.stack(list(anomaly_maps(ours.reshape(-1, SIDE, SIDE), SETTING)))
    np.testing.assert_allclose(maps, said.anomaly_map[:, 0], rtol=allowed)


def test_padim_image_scores(monkeypatch: pytest.MonkeyPatch, their_padim, good, seen):
    _, said, kept = their_padim
    monkeypatch.setattr(padim, "EPSILON", 0.01001)
    given = material(good[..., kept], seen[..., kept], SETTING)  # the order of channels plays no part
    np.testing.assert_allclose(PaDiM(len(kept))(given, 0, Recorder()).images, said.pred_score[:, 0], rtol=1e-4)
