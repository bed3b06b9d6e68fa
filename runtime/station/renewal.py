"""Takes what was deployed while the station runs, and takes it back if it proves bad.

Once a second, off the path to the verdict, it looks at the slots of the active job. Another bundle is loaded while the
old one goes on inspecting, and takes over between two parts. Then it is on trial; the old one stays loaded, so that
going back takes no time either.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from lineward.runtime.delivery.slot_state import Slot, SlotState
from lineward.runtime.delivery.slots import Slots
from lineward.runtime.errors import DeliveryError, JournalError, LinewardError, first_line
from lineward.runtime.station.configuration import Configuration
from lineward.runtime.station.jobs import Job
from lineward.runtime.station.journal_reader import JournalReader
from lineward.runtime.station.trial import BASELINE, Figures, limit_left, rejected_before

_EVERY = 1.0
_END_WITHIN = 2.0


class Renewed(Protocol):
    """What renewal asks of the station."""

    @property
    def job(self) -> Job | None:
        """What parts are inspected with now."""

    def renew_job(self, job: Job) -> bool:
        """Inspect with another bundle of the active job from the next part on; whether that is done."""

    def event(self, name: str, detail: str) -> None:
        """Tell everyone who listens."""


@dataclass
class _OnTrial:
    """A bundle on trial.

    Attributes:
        sha256: which.
        figures: so far.
        after: sequence number of the last part in the journal that was looked at.
        before: `rejected_before` of the bundle before it.
    """

    sha256: str
    figures: Figures
    after: int
    before: float | None


class Renewal:
    """Watches the slots of a station's jobs.

    Args:
        station: whose bundles are renewed.
        configuration: its station file.
        slots: of those jobs that have them, by number.
        open: opens a slot's bundle as a job.
        settled: called when a bundle was loaded.
        every: seconds from look to look.
    """

    def __init__(
        self,
        station: Renewed,
        configuration: Configuration,
        slots: Mapping[int, Slots],
        open: Callable[[int, Slots, Slot], Job],
        settled: Callable[[], object] = lambda: None,
        every: float = _EVERY,
    ) -> None:
        self._station = station
        self._journal: Path = configuration.folder
        self._trial = configuration.trial
        self._deadline = configuration.deadline
        self._slots = slots
        self._open = open
        self._settled = settled
        self._every = every
        self._old: Job | None = None
        self._on_trial: _OnTrial | None = None
        self._not_taken: set[tuple[str, int, str]] = set()  # deployments refused here that the slots were not told of
        self._complaint = ""
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lineward-renewal", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._thread.start()

    def stop(self) -> None:
        """Watch no more. A bundle that is being loaded is let go."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(_END_WITHIN)

    def _run(self) -> None:
        while not self._stop.wait(self._every):
            try:
                self.look()
                self._complaint = ""
            except Exception as error:  # the line goes on with what it has, and people learn of it once
                complaint = error.what if isinstance(error, LinewardError) else f"{type(error).__name__}: {error}"
                if complaint != self._complaint:
                    self._station.event("slots_unreadable", complaint)
                self._complaint = complaint

    def look(self) -> None:
        """Look once, and do what is to be done.

        Raises:
            DeliveryError: the slots are damaged, or cannot be read.
        """
        job = self._station.job
        slots = self._slots.get(job.number) if job else None
        if job is None or slots is None:
            return
        state = slots.read()
        if slots.damage is not None:
            raise DeliveryError(slots.damage, do="deploy a bundle, or roll back: either writes it anew")
        if state.active is None:
            return
        if not state.active.is_of(job.bundle.sha256):
            self._take(job, slots, state, state.active)
        elif state.active.proven or not state.before or not self._trial.parts:
            self._old = self._on_trial = None
        else:
            self._try(job, slots, state)

    # Another bundle.

    def _take(self, job: Job, slots: Slots, state: SlotState, slot: Slot) -> None:
        if _deployment(state) in self._not_taken:
            return
        began = time.monotonic()
        try:
            new = self._open(job.number, slots, slot)
        except Exception as error:  # whatever a bundle or an engine does, the old one stays
            why = f"{error.what}; {error.do}" if isinstance(error, LinewardError) else first_line(error)
            self._station.event("bundle_refused", f"job {job.number}, version {slot.version}: {why}; the old one stays")
            self._tell_slots(slots, state, slot.sha256, f"not loaded: {why}")
            return
        self._settled()
        on_trial = self._begin_trial(new.bundle.sha256, job.bundle.sha256)
        if self._stop.is_set() or not self._station.renew_job(new):
            return  # another change is under way: it is looked at again
        self._old, self._on_trial = job, on_trial
        trial = f"; on trial for {self._trial.parts} parts" if self._trial.parts and not slot.proven else ""
        took = time.monotonic() - began
        why = f" {state.history[-1].change}, {state.history[-1].why}" if state.history else ""
        self._station.event("bundle_changed", f"job {job.number}: version {slot.version}{why}; in {took:.2f} s{trial}")

    # The trial.

    def _begin_trial(self, sha256: str, before: str) -> _OnTrial | None:
        try:
            with closing(JournalReader(self._journal)) as reader:
                rows = list(reader.parts(last=BASELINE))
        except JournalError:
            return None  # begun at the next look
        after = rows[-1].sequence if rows else 0
        figures = Figures(self._trial.latency * self._deadline * 1e6)
        return _OnTrial(sha256, figures, after, rejected_before(rows, before))

    def _try(self, job: Job, slots: Slots, state: SlotState) -> None:
        if _deployment(state) in self._not_taken:
            return
        sha256 = job.bundle.sha256
        if self._on_trial is None or self._on_trial.sha256 != sha256:
            self._on_trial = self._begin_trial(sha256, state.before[0].sha256)
        on_trial = self._on_trial
        if on_trial is None or not self._count(on_trial):
            return
        why = limit_left(on_trial.figures, self._trial, self._deadline, on_trial.before)
        if why is not None:
            self._go_back(job, slots, state, f"{why} ({on_trial.figures})")
        elif on_trial.figures.parts >= self._trial.parts:
            slots.change(lambda state: state.proving(sha256))
            known = (
                "" if on_trial.before is not None else "; of the bundle before too little is known to compare rejects"
            )
            self._station.event("bundle_proven", f"job {job.number}: {on_trial.figures}{known}")

    def _count(self, on_trial: _OnTrial) -> bool:
        try:
            with closing(JournalReader(self._journal)) as reader:
                for row in reader.parts(after_sequence=on_trial.after):
                    on_trial.after = row.sequence
                    if row.bundle == on_trial.sha256 and on_trial.figures.parts < self._trial.parts:
                        on_trial.figures.add(row)
        except JournalError:
            return False  # locked or damaged just now: looked at again
        return True

    def _go_back(self, job: Job, slots: Slots, state: SlotState, why: str) -> None:
        slot = state.before[0]
        old = self._old
        if old is None or old.number != job.number or not slot.is_of(old.bundle.sha256):
            try:
                old = self._open(job.number, slots, slot)
            except Exception as error:
                self._not_taken.add(_deployment(state))
                reason = error.what if isinstance(error, LinewardError) else first_line(error)
                self._station.event("bundle_not_rolled_back", f"job {job.number}: {why}; but the one before: {reason}")
                return
        if not self._station.renew_job(old):
            return  # another change is under way: it is looked at again
        self._old = self._on_trial = None
        version = state.active.version if state.active else 0
        self._station.event(
            "bundle_rolled_back", f"job {job.number}: from version {version} to {slot.version}, since {why}"
        )
        self._tell_slots(slots, state, job.bundle.sha256, why)

    def _tell_slots(self, slots: Slots, state: SlotState, sha256: str, why: str) -> None:
        try:
            slots.refuse(sha256, why)
        except DeliveryError as error:
            self._not_taken.add(_deployment(state))
            self._station.event("slots_not_written", f"{error.what}; {error.do}")


def _deployment(state: SlotState) -> tuple[str, int, str]:
    """Which deployment made active what is active: deployed anew, a bundle is another deployment."""
    last = state.history[-1] if state.history else None
    return (last.time, len(state.history), last.sha256) if last else ("", 0, "")
