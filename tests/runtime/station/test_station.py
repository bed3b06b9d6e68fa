from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from lineward.runtime.errors import BundleError
from lineward.runtime.inspection import Outcome, Reason
from lineward.runtime.station.configuration import CameraTrigger, Engine, Seconds
from lineward.runtime.station.plc.handshake import Control, ControlBit, Offline, StatusBit
from lineward.runtime.station.records import Source
from tests.runtime.station.stand_ins import FedCamera, desk, frame_of, until

LINE = {"trigger": CameraTrigger()}
GOOD, BAD = frame_of(0.2), frame_of(0.9)


def check_reconciled(at, triggered):
    counts = at.station.counts()
    assert counts.triggered == triggered
    assert counts.triggered == counts.passed + counts.rejected + counts.rejected_without_verdict + counts.in_flight
    assert [r.trigger.id for r in at.heard.records] == list(range(1, len(at.heard.records) + 1))


def test_parts_of_a_self_exposing_camera(tiny, tmp_path):
    with desk(tiny, tmp_path, **LINE) as at:
        for frame in (GOOD, BAD, None, np.zeros((4, 4), np.uint8), GOOD):
            at.camera.feed(frame)
        assert at.finals(5) == [
            "within_threshold",
            "above_threshold",
            "frame_incomplete",
            "frame_unexpected",
            "within_threshold",
        ]
        check_reconciled(at, 5)
        first = at.heard.records[0]
        assert first.outcome is Outcome.PASSED
        assert first.bundle == tiny.sha256
        assert first.job == 1
        t = first.trigger.monotonic_ns
        assert t <= first.captured_ns <= first.started_ns <= first.decided_ns <= first.told_ns
        # The frames that were judged are seen, with their verdicts.
        until(lambda: len(at.heard.frames) == 3, "judged frames")
        assert [(r.trigger.id, int(f[0, 0])) for r, f in at.heard.frames] == [(1, 20), (2, 90), (5, 20)]


def test_a_gap_in_the_cameras_numbers_is_parts_without_frames(tiny, tmp_path):
    with desk(tiny, tmp_path, **LINE) as at:
        at.camera.feed(GOOD)
        at.camera.feed(GOOD, skip=2)
        assert at.finals(4) == ["within_threshold", "frame_missing", "frame_missing", "within_threshold"]
        check_reconciled(at, 4)
        assert "frames_lost" in at.heard.event_names


def ask(at, *bits, part=0):
    at.station.handshake.control(Control(sum(bits, ControlBit(0)), part=part))


def test_the_plc_triggers(tiny, tmp_path):
    with desk(tiny, tmp_path, FedCamera(lambda: GOOD)) as at:
        ask(at, ControlBit.TRIGGER)
        assert at.station.handshake.status().bits & StatusBit.MISSED_ACQUISITION  # not enabled
        ask(at)
        ask(at, ControlBit.TRIGGER_ENABLE)
        assert at.station.handshake.status().bits & StatusBit.TRIGGER_READY
        ask(at, ControlBit.TRIGGER_ENABLE, ControlBit.TRIGGER, part=77)
        assert at.finals(1) == ["within_threshold"]
        status = at.station.handshake.status()
        assert status.acquisition_id == 1
        assert status.result.trigger.part == 77
        assert status.missed == 1
        assert status.bits & StatusBit.PASS
        check_reconciled(at, 1)


def test_a_trigger_while_a_frame_is_awaited_is_missed_and_the_part_after_is_taken(tiny, tmp_path):
    with desk(tiny, tmp_path) as at:
        enable, trigger = ControlBit.TRIGGER_ENABLE, ControlBit.TRIGGER
        ask(at, enable, trigger)
        until(lambda: at.camera.fired == 1, "the camera fired")
        ask(at, enable)
        ask(at, enable, trigger)
        bits = at.station.handshake.status().bits
        assert bits & StatusBit.MISSED_ACQUISITION
        assert bits & StatusBit.ACQUIRING
        assert not bits & StatusBit.TRIGGER_READY
        at.camera.feed(GOOD)
        at.finals(1)
        until(lambda: bool(at.station.handshake.status().bits & StatusBit.TRIGGER_READY), "ready again")
        ask(at, enable)
        ask(at, enable, trigger)
        until(lambda: at.camera.fired == 2, "the camera fired again")
        at.camera.feed(BAD)
        assert at.finals(2) == ["within_threshold", "above_threshold"]
        assert at.station.handshake.status().missed == 1
        check_reconciled(at, 2)


def test_a_frame_that_comes_too_late_never_meets_the_next_part(tiny, tmp_path):
    with desk(tiny, tmp_path, deadline=Seconds(0.1)) as at:
        assert at.station.announce(Source.GPIO)
        assert at.finals(1) == ["deadline_missed"] or at.heard.reasons == ["frame_missing"]
        until(lambda: at.camera.started == 2, "the camera started anew")
        at.camera.answers = lambda: BAD
        until(lambda: at.station.state().ready, "ready")
        assert at.station.announce(Source.GPIO)
        assert at.finals(2)[1] == "above_threshold"
        check_reconciled(at, 2)


def test_a_frame_that_nobody_asked_for_never_meets_the_next_part(tiny, tmp_path):
    with desk(tiny, tmp_path) as at:
        at.camera.feed(GOOD)
        until(lambda: at.camera.started == 2, "the camera started anew")
        at.camera.answers = lambda: BAD
        assert at.station.announce(Source.GPIO)
        assert at.finals(1) == ["above_threshold"]


def test_an_idle_camera_that_goes_away_is_missed(tiny, tmp_path):
    with desk(tiny, tmp_path) as at:
        at.camera.lost = True
        until(lambda: at.station.state().offline is Offline.CAMERA_LOST, "offline")
        check_reconciled(at, 0)


def test_an_edge_that_cannot_be_served_is_a_rejected_part(tiny, tmp_path):
    with desk(tiny, tmp_path) as at:
        assert at.station.announce(Source.GPIO)
        assert not at.station.announce(Source.GPIO)
        until(lambda: at.camera.fired == 1, "the camera fired")
        at.camera.feed(GOOD)
        assert at.finals(2) == ["within_threshold", "too_many_parts"]  # in the order of triggers
        check_reconciled(at, 2)


def test_the_deadline_rejects_and_a_late_score_is_thrown_away(tiny, tmp_path):
    with desk(tiny, tmp_path, deadline=Seconds(0.1), **LINE) as at:
        go = threading.Event()
        at.inspector.before = lambda: go.wait(5)
        began = time.monotonic()
        at.camera.feed(GOOD)
        assert at.finals(1) == ["deadline_missed"]
        assert time.monotonic() - began < 1.0
        at.inspector.before = lambda: None
        go.set()
        until(lambda: at.station.counts().late == 1, "the late inspection")
        at.camera.feed(GOOD)
        assert at.finals(2) == ["deadline_missed", "within_threshold"]
        check_reconciled(at, 2)
        assert at.heard.frames[0][0].reason is Reason.DEADLINE_MISSED  # kept to be looked at


def test_more_parts_than_frames(tiny, tmp_path):
    with desk(tiny, tmp_path, frames=2, deadline=Seconds(5.0), **LINE) as at:
        go = threading.Event()
        at.inspector.before = lambda: go.wait(5)
        for _ in range(5):
            at.camera.feed(GOOD)
        until(lambda: at.station.counts().triggered == 5, "all five")
        go.set()
        assert at.finals(5) == ["within_threshold"] * 2 + ["too_many_parts"] * 3
        at.camera.feed(GOOD)
        assert at.finals(6)[5] == "within_threshold"
        check_reconciled(at, 6)


@pytest.mark.parametrize("score", [float("nan"), float("inf"), -1.0])
def test_an_impossible_score(tiny, tmp_path, score):
    with desk(tiny, tmp_path, **LINE) as at:
        at.inspector.score = score
        at.camera.feed(GOOD)
        at.finals(1)
        at.inspector.score = None
        at.camera.feed(GOOD)
        assert at.finals(2) == ["score_invalid", "within_threshold"]
        assert at.heard.records[0].outcome is Outcome.REJECTED_WITHOUT_VERDICT


def test_an_engine_that_raises_rejects_and_is_replaced(tiny, tmp_path):
    with desk(tiny, tmp_path, **LINE) as at:

        def fail():
            raise RuntimeError("CUDA error 700")

        at.inspector.before = fail
        for _ in range(3):
            at.camera.feed(GOOD)
        assert at.finals(3) == ["engine_failed"] * 3
        at.inspector.before = lambda: None
        until(lambda: "engine_renewed" in at.heard.event_names, "a new engine")
        at.camera.feed(GOOD)
        assert at.finals(4)[3] == "within_threshold"
        assert at.loads == [1, 1]
        assert any("CUDA error 700" in e.detail for e in at.heard.events)
        check_reconciled(at, 4)


def test_an_engine_that_hangs_is_replaced(tiny, tmp_path):
    hung_after = Engine(hung_after=Seconds(0.2))
    with desk(tiny, tmp_path, deadline=Seconds(0.1), engine=hung_after, **LINE) as at:
        go = threading.Event()
        at.inspector.before = lambda: go.wait(20)
        at.camera.feed(GOOD)
        at.finals(1)
        until(lambda: "engine_hung" in at.heard.event_names, "the hang noticed")
        at.inspector.before = lambda: None  # as a new engine would
        until(lambda: "engine_renewed" in at.heard.event_names, "a new engine")
        at.camera.feed(GOOD)
        assert at.finals(2) == ["deadline_missed", "within_threshold"]
        go.set()
        until(lambda: at.station.counts().late == 1, "the hung thread's end")
        check_reconciled(at, 2)


def test_an_engine_that_hangs_again_and_again_ends_the_station(tiny, tmp_path):
    hung_after = Engine(hung_after=Seconds(0.1))
    with desk(tiny, tmp_path, deadline=Seconds(0.05), engine=hung_after, **LINE) as at:
        go = threading.Event()
        at.inspector.before = lambda: go.wait(20)
        for hung in (1, 2, 3):
            at.camera.feed(GOOD)
            until(lambda hung=hung: at.heard.event_names.count("engine_hung") == hung, f"hang {hung}")
            if hung < 3:
                until(lambda hung=hung: at.heard.event_names.count("engine_renewed") == hung, "a new engine")
        until(lambda: at.station.failure is not None, "the end")
        assert at.station.wait(1)
        assert not at.station.is_alive
        go.set()
        counts = at.station.counts()
        assert counts.triggered == counts.rejected_without_verdict


def test_a_lost_camera_is_opened_anew(tiny, tmp_path):
    with desk(tiny, tmp_path) as at:
        at.station.announce(Source.GPIO)
        until(lambda: at.camera.fired == 1, "the camera fired")
        at.camera.lost = True
        assert at.finals(1) == ["camera_lost"]
        until(lambda: at.station.state().offline is Offline.CAMERA_LOST, "offline")
        assert not at.station.announce(Source.GPIO)
        assert at.finals(2)[1] == "camera_lost"
        at.camera.lost = False
        at.camera.answers = lambda: GOOD
        at.online()
        assert at.station.announce(Source.GPIO)
        assert at.finals(3)[2] == "within_threshold"
        assert [n for n in at.heard.event_names if n.startswith("camera")] == [
            "camera_ready",
            "camera_lost",
            "camera_back",
        ]
        check_reconciled(at, 3)


def change(at, job):
    at.station.handshake.control(Control(ControlBit.JOB_CHANGE, job=job))


def test_a_job_change_takes_effect_between_two_parts(tiny, tmp_path):
    with desk(tiny, tmp_path, **LINE) as at:
        go = threading.Event()
        at.jobs[2] = lambda: go.wait(5)
        at.camera.feed(GOOD)
        at.finals(1)
        change(at, 2)
        assert at.station.state().offline is Offline.JOB_CHANGING
        at.camera.feed(GOOD)
        assert at.finals(2)[1] == "job_changing"
        go.set()
        until(lambda: bool(at.station.handshake.status().bits & StatusBit.JOB_CHANGE_ACK), "the change")
        at.camera.feed(GOOD)
        assert at.finals(3)[2] == "within_threshold"
        assert [r.job for r in at.heard.records] == [1, 1, 2]
        assert at.inspectors[2].inspected == 1
        ask(at)
        assert not at.station.handshake.status().bits & StatusBit.JOB_CHANGE_ACK
        check_reconciled(at, 3)


def refuse():
    raise BundleError("two.lineward: damaged", do="take it again")


@pytest.mark.parametrize(
    ("job", "loading", "event"),
    [(2, refuse, "job_refused"), (3, None, "job_unknown"), (2, lambda: time.sleep(1.0), "job_refused")],
)
def test_a_refused_job_change_leaves_the_old_one(tiny, tmp_path, job, loading, event):
    with desk(tiny, tmp_path, change_within=Seconds(0.3), **LINE) as at:
        at.jobs[2] = loading
        change(at, job)
        until(lambda: bool(at.station.handshake.status().bits & StatusBit.JOB_CHANGE_FAILED), "the refusal")
        assert event in at.heard.event_names
        at.online()
        time.sleep(0.8 if loading and loading is not refuse else 0)  # what loads too late does not come to life later
        at.camera.feed(GOOD)
        assert at.finals(1) == ["within_threshold"]
        assert at.heard.records[0].job == 1


def test_a_journal_that_is_behind_takes_the_station_offline(tiny, tmp_path):
    behind = False
    with desk(tiny, tmp_path, journal_behind=lambda: behind, **LINE) as at:
        behind = True
        until(lambda: at.station.state().offline is Offline.JOURNAL_BEHIND, "offline")
        at.camera.feed(GOOD)
        assert at.finals(1) == ["journal_behind"]
        behind = False
        at.online()
        at.camera.feed(GOOD)
        assert at.finals(2)[1] == "within_threshold"


def test_a_stop_finishes_the_parts_in_flight(tiny, tmp_path):
    before = set(threading.enumerate())
    with desk(tiny, tmp_path, deadline=Seconds(2.0), **LINE) as at:
        at.inspector.before = lambda: time.sleep(0.1)
        for _ in range(4):
            at.camera.feed(GOOD)
        until(lambda: at.station.counts().triggered == 4, "all four")
        at.station.stop()
        assert at.heard.reasons == ["within_threshold"] * 4
        assert at.camera.closed
        assert not set(threading.enumerate()) - before


def test_keeping_warm(tiny, tmp_path):
    with desk(tiny, tmp_path, engine=Engine(keep_warm=Seconds(0.02)), **LINE) as at:
        until(lambda: at.inspector.inspected >= 3, "warm inspections")
        at.camera.feed(GOOD)
        assert at.finals(1) == ["within_threshold"]
        assert at.station.counts().triggered == 1
