"""Drift of what a station sees, told as an event: it looks at inspected frames, and changes no verdict."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from lineward.runtime.drift import DriftMonitor, DriftState, describe, measure
from lineward.runtime.errors import first_line
from lineward.runtime.inspection import Inspection, Reason

if TYPE_CHECKING:
    from lineward.runtime.station.jobs import Job

_NOT_WATCHED = "drift_not_watched"


class DriftWatch:
    """An `InspectionObserver`: a new monitor for each job that becomes active, events `drift` when it raises alarms.

    Args:
        event: tells of an event, by name and detail.
    """

    def __init__(self, event: Callable[[str, str], None]) -> None:
        self._event = event
        self._watched: tuple[int, str] | None = None  # job and bundle
        self._monitor: DriftMonitor | None = None

    def inspected(self, part: int, inspection: Inspection, job: Job) -> None:
        """See `records.InspectionObserver`. Whatever goes wrong here ends the watch of this job, and nothing else."""
        try:
            if (job.number, job.bundle.sha256) != self._watched:
                self._begin(job)
            if self._monitor is not None:
                self._take(part, inspection, self._monitor)
        except Exception as error:
            self._monitor = None
            self._event(_NOT_WATCHED, f"job {job.number}: {type(error).__name__}: {first_line(error)}; report this")

    def states(self) -> tuple[DriftState, ...]:
        """How each statistic of the job inspected last is; empty where drift is not watched. For any thread."""
        monitor = self._monitor
        return monitor.states() if monitor is not None else ()

    def _begin(self, job: Job) -> None:
        self._watched = job.number, job.bundle.sha256
        reference = job.bundle.manifest.drift
        self._monitor = None if reference is None else DriftMonitor(reference, job.threshold)
        if reference is None:
            self._event(
                _NOT_WATCHED, f"job {job.number}: its bundle has no drift reference; train it with this version"
            )

    def _take(self, part: int, inspection: Inspection, monitor: DriftMonitor) -> None:
        measurement = measure(inspection)
        if measurement is None:
            return
        alarms = monitor.update(part, measurement, inspection.reason is Reason.WITHIN_THRESHOLD)
        for alarm in alarms:
            state = next(state for state in monitor.states() if state.statistic is alarm.statistic)
            self._event("drift", describe(alarm, state))
