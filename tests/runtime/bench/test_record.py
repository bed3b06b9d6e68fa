from __future__ import annotations

import json

import numpy as np
import pytest

from lineward.runtime.bench.record import FRAME, TRIGGER, latencies, misses, read_record, write_record
from lineward.runtime.errors import BenchError


@pytest.fixture
def written(tmp_path, make_record):
    """A record's file, after a change to what it holds."""

    def write(change=lambda _: None):
        path = tmp_path / "a.json"
        write_record(path, make_record({None: [0.01, 0.02], 5.0: [0.01, 0.03]}))
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))
        return path

    return write


def test_what_is_written_is_read(tmp_path, make_record):
    record = make_record({None: [0.01, 0.02], 5.0: [0.01, 0.03]})
    write_record(tmp_path / "a.json", record)
    assert read_record(tmp_path / "a.json") == record


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda r: r.update(format=2), "format 2 is not known here"),
        (lambda r: r.update(more=1), "unknown field `more`"),
        (lambda r: r.pop("machine"), "missing required field `machine`"),
        (lambda r: r.update(bundle="x"), r"`\$.bundle`"),
        (lambda r: r["runs"][0].update(samples=[]), "length >= 1"),
        (lambda r: r["runs"][0]["samples"][0].update(queued=-1), "queued"),
        (lambda r: r["runs"][1]["samples"][1].update(stages=[1]), "at 5/s do not fit its stages"),
        (lambda r: r["runs"][0]["stages"].__setitem__(0, "magic"), "do not fit its stages"),
        (lambda r: r["runs"][0].update(rate="fast"), "rate"),
    ],
)
def test_a_record_that_is_not_whole_is_refused(written, change, message):
    path = written(change)
    with pytest.raises(BenchError, match=message) as caught:
        read_record(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("data", [b"", b"{", b"[]", b"\xff", b"null", b"[" * 100_000])
def test_no_record_at_all(tmp_path, data):
    (tmp_path / "a.json").write_bytes(data)
    with pytest.raises(BenchError, match="not a record of a bench"):
        read_record(tmp_path / "a.json")


def test_files_that_cannot_be_read_or_written(tmp_path, make_record):
    with pytest.raises(BenchError, match="cannot be read"):
        read_record(tmp_path / "missing.json")
    with pytest.raises(BenchError, match="cannot be written"):
        write_record(tmp_path / "missing" / "a.json", make_record())


def test_the_queue_counts_from_the_trigger_and_decoding_not_from_the_frame(make_record):
    import msgspec

    run = make_record({5.0: [0.3]}).runs[0]
    sample = msgspec.structs.replace(run.samples[0], queued=0.5, stages=(0.1, 0.0, 0.2, 0.0, 0.0, 0.0))
    found = latencies(msgspec.structs.replace(run, samples=(sample,)))
    assert found[TRIGGER] == pytest.approx([0.8])
    assert found[FRAME] == pytest.approx([0.2])


def test_deadlines_are_missed_beyond_them_not_at_them(make_record):
    run = make_record({None: [0.25, 0.5, 0.75]}).runs[0]
    assert [misses(run, deadline) for deadline in (0.2, 0.5, 0.75)] == [3, 1, 0]
    np.testing.assert_array_equal(latencies(run)["embedding"], [0.25, 0.5, 0.75])
