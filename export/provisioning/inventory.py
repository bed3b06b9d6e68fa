"""What is in an archive: a software bill of materials (CycloneDX 1.6), and the licences in plain text."""

from __future__ import annotations

import json
import uuid
from collections.abc import Sequence

from packaging.licenses import InvalidLicenseExpression, canonicalize_license_expression
from packaging.utils import canonicalize_name

from lineward.export.provisioning.target import Target
from lineward.export.provisioning.wheels import Wheel

_NAMESPACE = uuid.uuid5(uuid.NAMESPACE_URL, "urn:lineward:image")


def write_sbom(wheels: Sequence[Wheel], target: Target, lock: str) -> str:
    """A CycloneDX document of the wheels: what they are, their SHA-256, licences, and what needs what.

    Nothing in it depends on the time, and its serial number follows from the lock.
    """
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(_NAMESPACE, lock)}",
        "version": 1,
        "metadata": {
            "component": {"type": "application", "bom-ref": "image", "name": "lineward-image"},
            "properties": [
                {"name": "lineward:target", "value": target.name},
                {"name": "lineward:python", "value": target.python_version},
                {"name": "lineward:machine", "value": target.machine},
            ],
        },
        "components": [_component(wheel) for wheel in wheels],
        "dependencies": [
            {"ref": "image", "dependsOn": [_purl(wheel) for wheel in wheels]},
            *({"ref": _purl(wheel), "dependsOn": _needed(wheel, wheels, target)} for wheel in wheels),
        ],
    }
    return json.dumps(document, indent=2) + "\n"


def write_licences(wheels: Sequence[Wheel]) -> str:
    """A line for each package; the licences' own words are in the wheels."""
    width = max(len(f"{wheel.name} {wheel.version}") for wheel in wheels)
    lines = [f"{f'{wheel.name} {wheel.version}':<{width}}  {wheel.licence}\n" for wheel in wheels]
    return (
        "What each wheel's metadata says of its licence. The texts lie in the wheels (*.dist-info), and what a wheel\n"
        "carries in compiled form may have licences of its own, named there.\n\n" + "".join(lines)
    )


def _component(wheel: Wheel) -> dict[str, object]:
    return {
        "type": "library",
        "bom-ref": _purl(wheel),
        "name": wheel.name,
        "version": str(wheel.version),
        "purl": _purl(wheel),
        "hashes": [{"alg": "SHA-256", "content": wheel.sha256}],
        "licenses": [_licence(wheel.licence)],
        "properties": [{"name": "lineward:file", "value": wheel.path.name}],
    }


def _licence(words: str) -> dict[str, object]:
    try:
        return {"expression": str(canonicalize_license_expression(words))}
    except InvalidLicenseExpression:
        return {"license": {"name": words}}


def _purl(wheel: Wheel) -> str:
    return f"pkg:pypi/{wheel.name}@{wheel.version}"


def _needed(wheel: Wheel, wheels: Sequence[Wheel], target: Target) -> list[str]:
    environment = {**target.environment(), "extra": ""}
    wanted = {canonicalize_name(r.name) for r in wheel.requires if r.marker is None or r.marker.evaluate(environment)}
    return [_purl(other) for other in wheels if other.name in wanted]
