"""The slots that a command's station file and job number name."""

from __future__ import annotations

from lineward.runtime.delivery.slots import Slots, is_slots
from lineward.runtime.errors import StationError
from lineward.runtime.station.configuration import Configuration


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
