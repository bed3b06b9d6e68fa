"""Wheel files: what they are called, hold and need."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path

from packaging.metadata import RawMetadata, parse_email
from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import InvalidSpecifier, SpecifierSet
from packaging.tags import Tag
from packaging.utils import InvalidWheelFilename, canonicalize_name, parse_wheel_filename
from packaging.version import Version

from lineward.export.provisioning.target import Target
from lineward.runtime.errors import ProvisioningError, first_line


@dataclass(frozen=True)
class Wheel:
    """A wheel file.

    Attributes:
        path: the file.
        name: its project, in canonical form.
        version: its version.
        tags: what it runs on.
        python: which Pythons it runs on.
        sha256: of the file, in hexadecimal.
        requires: what it needs, with markers.
        licence: as its metadata says it.
    """

    path: Path
    name: str
    version: Version
    tags: frozenset[Tag]
    python: SpecifierSet
    sha256: str
    requires: tuple[Requirement, ...]
    licence: str

    def runs_on(self, target: Target) -> bool:
        """Whether it can be installed there."""
        return not self.tags.isdisjoint(target.tags()) and self.python.contains(f"{target.python_version}.99")


def read_wheel(path: Path) -> Wheel:
    """Read a wheel's name and metadata.

    Raises:
        ProvisioningError: it is missing, or not a wheel.
    """
    try:
        name, version, _, tags = parse_wheel_filename(path.name)
        with zipfile.ZipFile(path) as archive:
            member = next(m for m in archive.namelist() if m.count("/") == 1 and m.endswith(".dist-info/METADATA"))
            metadata, _ = parse_email(archive.read(member))
        return Wheel(
            path,
            canonicalize_name(name),
            version,
            tags,
            SpecifierSet(metadata.get("requires_python", "")),
            hashlib.sha256(path.read_bytes()).hexdigest(),
            tuple(Requirement(text) for text in metadata.get("requires_dist", [])),
            _licence(metadata),
        )
    except OSError as error:
        raise ProvisioningError(f"{path}: cannot be read ({error.strerror})", do="check the path") from error
    except (InvalidWheelFilename, InvalidRequirement, InvalidSpecifier, zipfile.BadZipFile, StopIteration) as error:
        raise ProvisioningError(
            f"{path}: not a wheel, or damaged ({first_line(error)})", do="name a .whl file as pip makes it"
        ) from error


def _licence(metadata: RawMetadata) -> str:
    """The licence: as an SPDX expression (PEP 639), else by its classifiers, else the first line of its own words."""
    if expression := metadata.get("license_expression"):
        return expression
    classified = [c.split(" :: ")[-1] for c in metadata.get("classifiers", []) if c.startswith("License :: OSI")]
    words = metadata.get("license", "").strip().splitlines()
    return " or ".join(classified) or (words[0] if words else "") or "not stated in its metadata"
