from __future__ import annotations

from pathlib import Path

import pytest
import torch

from benchmarks.accuracy.mobilenet import MobileNetV2, load_mobilenet
from lineward.runtime.errors import TrainingError


def test_the_network_is_the_papers():
    network = MobileNetV2().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 2_223_872  # 3.5 million less the classifier
    with torch.inference_mode():
        levels = network(torch.zeros(1, 3, 64, 64))
    shapes = {stride: tuple(level.shape[1:]) for stride, level in levels.items()}
    assert shapes == {2: (16, 32, 32), 4: (24, 16, 16), 8: (32, 8, 8), 16: (96, 4, 4), 32: (320, 2, 2)}


def test_weights_are_loaded(tmp_path: Path):
    torch.save(MobileNetV2().state_dict(), tmp_path / "weights.pt")
    backbone = load_mobilenet(tmp_path / "weights.pt")
    assert not backbone.network.training
    backbone.channels((8, 16))
    for name, tensor in torch.load(tmp_path / "weights.pt", weights_only=True).items():
        assert torch.equal(backbone.network.state_dict()[name], tensor)


def test_weights_of_another_network_are_refused(tmp_path: Path):
    torch.save({"weight": torch.zeros(1)}, tmp_path / "weights.pt")
    with pytest.raises(TrainingError, match="not the weights of mobilenet_v2"):
        load_mobilenet(tmp_path / "weights.pt")
    with pytest.raises(TrainingError, match="not a weights file"):
        load_mobilenet(tmp_path / "absent.pt")
