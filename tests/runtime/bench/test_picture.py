from __future__ import annotations

import msgspec
import numpy as np
import pytest

from lineward.runtime.bench.picture import draw_record

RED = (200, 30, 30)


@pytest.mark.parametrize(
    "values",
    [[0.01], [0.0, 0.0], [0.01] * 500, [0.01] * 499 + [0.06], [1e-7] * 3, [1e4, 1e-6]],
    ids=["one", "no time at all", "all equal", "a stall", "nanoseconds", "hours"],
)
@pytest.mark.parametrize("deadline", [None, 0.012])
def test_any_record_can_be_drawn(make_record, values, deadline):
    one = draw_record(make_record({None: values}, deadline=deadline))
    two = draw_record(make_record({None: values, 5.0: values}, deadline=deadline))
    assert one.dtype == np.uint8
    assert one.shape[1:] == two.shape[1:] == (1200, 3)
    assert two.shape[0] > one.shape[0]


def test_a_missed_deadline_is_red(make_record):
    def reds(values):
        return int((draw_record(make_record({None: values}, deadline=0.05)) == RED).all(2).sum())

    assert reds([0.01] * 499 + [0.06]) > reds([0.01] * 500) > 0


def test_a_product_in_any_script(make_record):
    record = make_record()
    assert draw_record(msgspec.structs.replace(record, product="Flaschenverschlüsse 瓶盖")).any()
