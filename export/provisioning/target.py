"""The systems that archives are made for: architecture, Python and C library, as wheels name them."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass

from packaging.tags import Tag, compatible_tags, cpython_tags

from lineward.runtime.errors import ProvisioningError


@dataclass(frozen=True)
class Target:
    """A device's system.

    Attributes:
        name: as `lineward image --target` has it.
        machine: as `uname -m` prints it.
        python: major and minor version of its Python.
        glibc: the oldest C library that it may have.
        jetson: JetPack's TensorRT lies among the system's packages, and must be seen.
    """

    name: str
    machine: str
    python: tuple[int, int]
    glibc: tuple[int, int]
    jetson: bool = False

    @property
    def python_version(self) -> str:
        """Such as "3.10"."""
        return "{}.{}".format(*self.python)

    def platforms(self) -> list[str]:
        """The platform tags of wheels that run there (PEP 600), the narrowest first; those built on a device last."""
        major, minor = self.glibc
        newest_first = [f"manylinux_{major}_{m}_{self.machine}" for m in range(minor, 16, -1)]
        old = [f"manylinux2014_{self.machine}"]
        if self.machine == "x86_64":
            old += ["manylinux_2_12_x86_64", "manylinux2010_x86_64", "manylinux_2_5_x86_64", "manylinux1_x86_64"]
        return [*newest_first, *old, f"linux_{self.machine}"]

    def tags(self) -> frozenset[Tag]:
        """The tags of wheels that run there."""
        platforms = self.platforms()
        interpreter = "cp{}{}".format(*self.python)
        return frozenset(
            [*cpython_tags(self.python, platforms=platforms), *compatible_tags(self.python, interpreter, platforms)]
        )

    def environment(self) -> dict[str, str]:
        """What environment markers (PEP 508) evaluate to there."""
        full = f"{self.python_version}.0"
        return {
            "implementation_name": "cpython",
            "implementation_version": full,
            "os_name": "posix",
            "platform_machine": self.machine,
            "platform_python_implementation": "CPython",
            "platform_release": "",
            "platform_system": "Linux",
            "platform_version": "",
            "python_full_version": full,
            "python_version": self.python_version,
            "sys_platform": "linux",
        }


TARGETS: Mapping[str, Target] = {
    # Ubuntu 22.04 and 24.04, on which JetPack 6 and 7 are built.
    "jetpack6": Target("jetpack6", "aarch64", (3, 10), (2, 35), jetson=True),
    "jetpack7": Target("jetpack7", "aarch64", (3, 12), (2, 39), jetson=True),
    # As old as the wheels allow that this needs: Debian 10, Ubuntu 20.04, RHEL 8.
    "x86_64": Target("x86_64", "x86_64", sys.version_info[:2], (2, 28)),
}


def find_target(name: str, python: str | None) -> Target:
    """The target of that name.

    Args:
        name: one of `TARGETS`.
        python: such as "3.12", for x86_64 alone; None: the version that runs here.

    Raises:
        ProvisioningError: there is no such Python for the target.
    """
    target = TARGETS[name]
    if python is None:
        return target
    if target.jetson:
        raise ProvisioningError(
            f"--python {python}: {name} has Python {target.python_version}", do="leave --python out, or take x86_64"
        )
    if not re.fullmatch(r"3\.1[0-3]", python):
        raise ProvisioningError(f"--python {python}: not a version that Lineward runs on", do="name 3.10 to 3.13")
    return Target(name, target.machine, (3, int(python[2:])), target.glibc)
