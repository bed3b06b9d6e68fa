"""The trial of a new bundle on the line: is it to stay, or to be taken back?

Each limit is counted against the whole trial, so that it is left as soon as that is certain: with 200 parts and 2 %
without a verdict, at the fifth such part. Nothing that comes later could undo it, and looking often finds nothing that
looking once at the end would not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lineward.runtime.inspection import JUDGED, Outcome, Reason
from lineward.runtime.station.configuration import Trial
from lineward.runtime.station.journal_reader import JournalRow

BASELINE = 1000
"""The latest parts in which the bundle before is looked for."""

_LEAST_BASELINE = 50
_SLOW_SHARE = 0.01  # p99
_BLAMED = {
    reason.value
    for reason in (Reason.SCORE_INVALID, Reason.ENGINE_FAILED, Reason.DEADLINE_MISSED, Reason.TOO_MANY_PARTS)
}
_JUDGED = {reason.value for reason in JUDGED}


@dataclass
class Figures:
    """Parts of one bundle, counted. Those that were lost for a camera, a PLC or a journal say nothing of a bundle.

    Attributes:
        slow_after_us: an inspection that takes longer is slow.
        parts: that say something of the bundle.
        without_verdict: of these, rejected without a verdict in time.
        rejected: of these, rejected by their score.
        slow: of these, with a slow inspection.
    """

    slow_after_us: float
    parts: int = 0
    without_verdict: int = 0
    rejected: int = 0
    slow: int = 0

    def add(self, row: JournalRow) -> None:
        """Count a part."""
        if row.reason not in _BLAMED | _JUDGED:
            return
        self.parts += 1
        self.without_verdict += row.outcome == Outcome.REJECTED_WITHOUT_VERDICT.value
        self.rejected += row.outcome == Outcome.REJECTED.value
        if row.started_us is not None and row.decided_us is not None:
            self.slow += row.decided_us - row.started_us > self.slow_after_us

    def __str__(self) -> str:
        return f"{self.parts} parts, {self.rejected} rejected, {self.without_verdict} without verdict, {self.slow} slow"


def rejected_before(rows: Iterable[JournalRow], bundle: str) -> float | None:
    """The share of parts that a bundle rejected by their score; None where it judged too few to tell."""
    reasons = [row.reason for row in rows if row.bundle == bundle and row.reason in _JUDGED]
    if len(reasons) < _LEAST_BASELINE:
        return None
    return (len(reasons) - reasons.count(Reason.WITHIN_THRESHOLD.value)) / len(reasons)


def limit_left(figures: Figures, trial: Trial, deadline: float, before: float | None) -> str | None:
    """Which limit of the trial is left for certain, with the figures; None: none yet.

    Args:
        figures: so far.
        trial: the limits.
        deadline: of the station, in seconds.
        before: `rejected_before` of the bundle before; None: rejects have no limit.
    """
    if figures.without_verdict > trial.without_verdict * trial.parts:
        return (
            f"{figures.without_verdict} of {figures.parts} parts without a verdict in time, allowed are"
            f" {trial.without_verdict:.1%} of {trial.parts}"
        )
    if figures.slow > _SLOW_SHARE * trial.parts:
        return (
            f"{figures.slow} of {figures.parts} inspections took longer than {figures.slow_after_us / 1e3:.1f} ms,"
            f" {trial.latency:.0%} of the deadline of {deadline * 1e3:g} ms; allowed are 1 % of {trial.parts}"
        )
    if before is not None and figures.rejected > (before + trial.more_rejects) * trial.parts:
        return (
            f"{figures.rejected} of {figures.parts} parts rejected; the bundle before rejected {before:.1%}, allowed"
            f" are {trial.more_rejects:.1%} more of {trial.parts}"
        )
    return None
