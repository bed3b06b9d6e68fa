from __future__ import annotations

import numpy as np
import pytest

from lineward.runtime.bench import measure
from lineward.runtime.bench.measure import MOST_IMAGES, Material, Plan, read_material, run_bench
from lineward.runtime.bench.record import EMBEDDING_AND_SIMILARITY, TRIGGER, latencies, misses
from lineward.runtime.bench.report import COLUMNS, machine_rows, run_remarks, run_rows
from lineward.runtime.bench.statistics import summarise
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.errors import BenchError, ImageError
from lineward.runtime.images import encode_png
from lineward.runtime.stages import Stage


@pytest.fixture
def bench(tiny, clock, monkeypatch):
    """Benches the tiny bundle with an engine that takes given times of the fake clock, inspection by inspection."""

    def run(plan, seconds, hears=True):
        taken = []

        class Engine:
            def __init__(self, ended):
                self.ended = ended

            def score(self, images):
                value = seconds(len(taken))
                taken.append(value)
                clock.work(value * 3 / 4)
                if hears:
                    self.ended(Stage.EMBEDDING)
                clock.work(value / 4)
                return np.zeros((len(images), 8, 8), np.float32)

        monkeypatch.setattr(measure, "open_engine", lambda _bundle, _name, _threads, ended: Engine(ended))
        return run_bench(tiny, read_material(tiny, []), plan, lambda _: None, clock), taken

    return run


def test_a_stall_of_50_ms_once_in_500_triggers_is_seen_and_missed(bench):
    """Once in each run, after the one cold inspection and the warm-up."""
    stalls = {1 + 20 + 250, 1 + 520 + 20 + 250}
    plan = Plan(count=500, warmup=20, rate=5, deadline=0.012)
    record, _ = bench(plan, lambda index: 0.06 if index in stalls else 0.01)
    assert [run.rate for run in record.runs] == [None, 5]
    for run in record.runs:
        found = summarise(latencies(run)[TRIGGER])
        assert (found.p50, found.p99) == pytest.approx((0.01, 0.01))
        assert (found.p999, found.greatest) == pytest.approx((0.06, 0.06))
        assert misses(run, 0.012) == 1
        assert any("missed by 1 of 500" in remark for remark in run_remarks(run, 0.012))


def test_a_stall_longer_than_the_gap_is_felt_by_the_next_triggers(bench):
    record, _ = bench(Plan(count=20, warmup=0, rate=100), lambda index: 0.035 if index == 1 + 20 + 5 else 0.001)
    latency = latencies(record.runs[1])[TRIGGER]
    assert latency[5:10] == pytest.approx([0.035, 0.026, 0.017, 0.008, 0.001])
    assert any("3 of 20 triggers were due" in remark for remark in run_remarks(record.runs[1], None))


def test_the_first_inspection_is_apart_and_the_warm_up_in_none(bench):
    record, taken = bench(Plan(count=3, warmup=2), lambda index: [5, 4, 4, 1, 1, 1][index])
    assert len(taken) == 1 + 2 + 3
    assert sum(record.cold.stages.values()) == pytest.approx(5)
    assert latencies(record.runs[0])[TRIGGER] == pytest.approx([1, 1, 1])


def test_the_stages_are_the_paths(bench):
    record, _ = bench(Plan(count=2, warmup=0), lambda _: 1.0)
    assert record.runs[0].stages == tuple(record.cold.stages) == tuple(stage.value for stage in Stage)
    found = latencies(record.runs[0])
    assert found["embedding"] == pytest.approx([0.75, 0.75])
    assert found["similarity"] == pytest.approx([0.25, 0.25])


def test_an_engine_that_cannot_tell_embedding_from_similarity_has_one_stage(bench):
    record, _ = bench(Plan(count=2, warmup=0), lambda _: 1.0, hears=False)
    assert latencies(record.runs[0])[EMBEDDING_AND_SIMILARITY] == pytest.approx([1, 1])
    assert not {"embedding", "similarity"} & set(record.runs[0].stages)


def test_images_decoded_beforehand_have_no_such_stage(bench):
    record, _ = bench(Plan(count=2, warmup=0, decoded=True), lambda _: 1.0)
    assert "decode" not in record.runs[0].stages
    assert record.images.decoded
    assert any("decoded beforehand" in text for _, text in machine_rows(record))


def interrupt_at(trigger):
    def seconds(index):
        if index == trigger:
            raise KeyboardInterrupt
        return 0.01

    return seconds


@pytest.mark.parametrize(("at", "runs"), [(1 + 2 + 3, [3]), (1 + 7, [5]), (1 + 7 + 1, [5]), (1 + 7 + 2 + 4, [5, 4])])
def test_an_interrupt_reports_what_there_is(bench, at, runs):
    record, taken = bench(Plan(count=5, warmup=2, rate=5), interrupt_at(at))
    assert [len(run.samples) for run in record.runs] == runs
    assert len(taken) == at
    assert record.runs[-1].interrupted == (runs[-1] < 5)
    assert list(run_rows(record.runs[-1]))


@pytest.mark.parametrize("at", [0, 1, 2])
def test_an_interrupt_before_anything_was_measured(bench, at):
    with pytest.raises(KeyboardInterrupt):
        bench(Plan(count=5, warmup=1), interrupt_at(at))


def test_rows_have_the_columns_and_hide_what_the_sample_does_not_support(bench):
    record, _ = bench(Plan(count=49, warmup=0), lambda _: 1.0)
    rows = list(run_rows(record.runs[0]))
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert {row[COLUMNS.index("p99")] for row in rows} == {"-"}
    assert rows[-1][0] == TRIGGER
    assert rows[-1][COLUMNS.index("max")] == "1000.000"


# What is inspected


def test_golden_images_unless_others_are_named(tiny, tmp_path, golden_frames):
    assert read_material(tiny, []).source == "the bundle's own 2 golden images"
    for index in range(MOST_IMAGES + 1):
        (tmp_path / f"{index:03}.png").write_bytes(encode_png(golden_frames[0]))
    found = read_material(tiny, [str(tmp_path)])
    assert len(found.files) <= MOST_IMAGES
    assert found.source == f"{len(found.files)} of {MOST_IMAGES + 1} images given"


def test_a_bundle_without_golden_images_asks_for_images(tiny, rebundle):
    members = {name: None for name in tiny.members if name.startswith("golden/")}
    bare = decode_bundle(rebundle(members, golden=()), "bare.lineward")
    with pytest.raises(BenchError, match="no golden images"):
        read_material(bare, [])


@pytest.mark.parametrize("decoded", [False, True])
@pytest.mark.parametrize("data", [b"no image", encode_png(np.zeros((4, 4), np.uint8))], ids=["text", "too small"])
@pytest.mark.parametrize("place", [0, 1])
def test_an_image_that_cannot_be_inspected_is_found_before_the_runs(tiny, clock, golden_frames, data, decoded, place):
    files = [("good.png", encode_png(golden_frames[0]))] * 2
    files[place] = ("bad.png", data)
    said = []
    with pytest.raises(ImageError):
        run_bench(tiny, Material("made up", tuple(files)), Plan(count=1, decoded=decoded), said.append, clock)
    assert not any(text.startswith("back to back") for text in said)
