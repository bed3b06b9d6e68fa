"""The one small tree of exceptions: each says what was wrong, where, and what to do next."""

from __future__ import annotations


class LinewardError(Exception):
    """Base of every error that Lineward raises on purpose.

    Args:
        what: what was wrong and where (the file, the member, the value that offended).
        do: what the reader should do next.
    """

    def __init__(self, what: str, *, do: str) -> None:
        super().__init__(what, do)
        self.what = what
        self.do = do

    def __str__(self) -> str:
        return f"{self.what}\n  -> {self.do}"


class BundleError(LinewardError):
    """A bundle is damaged, incomplete, hostile or of an unknown format."""


class SignatureError(BundleError):
    """A bundle lacks a signature that this machine trusts, or holds one that is malformed."""


class KeyFileError(LinewardError):
    """A key, key folder or passphrase is missing, malformed, open to others, or does not fit."""


class ImageError(LinewardError):
    """An image cannot be read, or has a shape or type that cannot be inspected."""


class DataError(LinewardError):
    """A data set is missing, empty, or laid out in a way that is not understood."""


class EngineError(LinewardError):
    """An engine cannot be built, or gave something other than the scores it owes."""


class CalibrationError(LinewardError):
    """A promise (such as a false-reject rate) that the sample at hand cannot support."""


class TrainingError(LinewardError):
    """A recipe, backbone or weights file that cannot be trained with."""


class BenchError(LinewardError):
    """A benchmark that cannot be run, a record of one that cannot be read, or two that must not be compared."""


class StationError(LinewardError):
    """A station file, or what it names, that a station cannot run with."""


class DeliveryError(LinewardError):
    """A bundle that is not to become active, or slots that cannot be relied upon."""


class FleetError(LinewardError):
    """A repository of bundles that cannot be reached, relied upon or written."""


class CameraError(LinewardError):
    """A camera that is not there, went away, or does not offer what the station file asks of it."""


class JournalError(LinewardError):
    """A journal that cannot be opened, read or written."""


class ProvisioningError(LinewardError):
    """An archive for a device that cannot be made of what was named."""


class MissingExtraError(LinewardError):
    """A command on a machine that lacks the packages it needs."""


def first_line(error: Exception) -> str:
    """What another library's error says, short enough to be quoted in one of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0]
