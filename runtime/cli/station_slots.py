"""The slots that a command's station file and job number name, and the proof of a bundle that is to go there."""

from __future__ import annotations

from lineward.runtime.bundle import Bundle
from lineward.runtime.delivery.latency import Latency, check_latency
from lineward.runtime.delivery.slots import Slots, is_slots
from lineward.runtime.errors import StationError
from lineward.runtime.station.configuration import Configuration
from lineward.runtime.station.jobs import open_job


def job_slots(configuration: Configuration, job: int | None) -> tuple[int, Slots]:
    """A job's number and slots; the first job's where none is named.

    Raises:
        StationError: there is no such job, or it names the file of a bundle.
    """
    number = configuration.first_job if job is None else job
    path = configuration.jobs.get(number)
    if path is None:
        raise StationError(f"no job {number} in the station file", do=f"name one of {sorted(configuration.jobs)}")
    if not is_slots(path):
        raise StationError(
            f"job {number} names the file of a bundle, {path}, which has no slots",
            do=f'name a folder in the station file, such as {number} = "slots/{path.stem}"; see docs/delivery.md',
        )
    return number, Slots(path)


class Proof:
    """Proves a bundle for a job on this device, with the station's own engine: golden images, then the deadline.

    Attributes:
        latency: of the last one that passed.
    """

    def __init__(self, configuration: Configuration, job: int) -> None:
        self._configuration = configuration
        self._job = job
        self.latency: Latency | None = None

    def __call__(self, bundle: Bundle) -> None:
        """Prove it.

        Raises:
            LinewardError: it does not do here.
        """
        calibration = self._configuration.calibrations.get(self._job)
        job = open_job(self._job, bundle, self._configuration.engine, calibration)
        self.latency = check_latency(job.inspector, job.warm_frame, self._configuration.deadline)
