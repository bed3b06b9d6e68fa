from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lineward.export.paged import paged
from lineward.runtime.errors import TrainingError


@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_it_holds_what_is_written_and_outlives_its_file(tmp_path: Path, dtype: type) -> None:
    array = paged(tmp_path / "pixels", dtype, (3, 4, 5))
    assert array.dtype == dtype
    assert (array == 0).all()
    (tmp_path / "pixels").unlink()
    array[:] = np.arange(60).reshape(3, 4, 5)
    assert array.ravel().tolist() == list(range(60))


def test_a_disk_without_room_is_an_error_that_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"no room for 1,073,741,824 MiB \(.+\)") as raised:
        paged(tmp_path / "pixels", np.uint8, (2**20, 2**30))
    assert "TMPDIR" in raised.value.do
