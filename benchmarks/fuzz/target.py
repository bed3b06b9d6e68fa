"""One reader under atheris: whatever the bytes, it may return or raise a LinewardError, and nothing else.

    python -m benchmarks.fuzz.target NAME [libFuzzer's options] [folders of inputs]

`python -m benchmarks.fuzz` starts it; by hand, with a file in place of folders, it runs that input alone.
"""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["lineward", "zipfile", "msgspec", "safetensors", "tomli"]):
    from lineward.runtime.bundle import decode_bundle
    from lineward.runtime.errors import LinewardError
    from lineward.runtime.manifest import decode_manifest
    from lineward.runtime.signature import decode_signatures
    from lineward.runtime.station.configuration import read_configuration

SCRATCH = Path(tempfile.mkdtemp(prefix="lineward-fuzz-"))


def bundle(data: bytes) -> None:
    """A bundle's file."""
    decode_bundle(data, "fuzzed")


def manifest(data: bytes) -> None:
    """The manifest of a bundle, whose hashes nothing checks."""
    decode_manifest(data, "fuzzed")


def signatures(data: bytes) -> None:
    """The signatures of a bundle."""
    decode_signatures(data, "fuzzed")


def station(data: bytes) -> None:
    """A station file."""
    path = SCRATCH / "station.toml"
    path.write_bytes(data)
    read_configuration(path)


READERS: dict[str, Callable[[bytes], None]] = {
    reader.__name__: reader for reader in (bundle, manifest, signatures, station)
}


def main() -> None:
    """Fuzz until libFuzzer ends the process."""
    name, *options = sys.argv[1:]
    reader = READERS[name]

    def one(data: bytes) -> None:
        with suppress(LinewardError):
            reader(data)

    atheris.Setup([sys.argv[0], *options], one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
