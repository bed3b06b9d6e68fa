"""The wheels that a device needs: chosen for its Python and architecture, whatever runs here, and fetched by pip.

pip evaluates environment markers for the interpreter that runs it, also when asked for another `--python-version`: it
would leave out what only the device needs. So requirements are followed here, and pip fetches what is named.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from lineward.export.provisioning.target import Target
from lineward.export.provisioning.wheels import Wheel, read_wheel
from lineward.runtime.errors import ProvisioningError

_ROUNDS = 30
_HASH = re.compile(r"--hash=sha256:([0-9a-f]{64})")


@dataclass(frozen=True)
class Lock:
    """Which versions, and which files, may be chosen.

    Attributes:
        versions: of each project that is named, in canonical form.
        hashes: SHA-256 of the files of each project of which one is stated.
    """

    versions: Mapping[str, SpecifierSet]
    hashes: Mapping[str, frozenset[str]]


NO_LOCK = Lock({}, {})


def read_lock(path: Path, target: Target) -> Lock:
    """Read lines such as `numpy==2.2.6 --hash=sha256:…`: a former archive's lock, or pip's constraints.

    Raises:
        ProvisioningError: it cannot be read, or a line is something else.
    """
    try:
        lines = path.read_text(encoding="utf-8").replace("\\\n", " ").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ProvisioningError(f"{path}: cannot be read ({error})", do="check the path") from error
    versions: dict[str, SpecifierSet] = {}
    hashes: dict[str, frozenset[str]] = {}
    for line in lines:
        text = _HASH.sub("", line.partition(" #")[0]).strip()
        if not text or text.startswith("#"):
            continue
        try:
            requirement = Requirement(text)
        except InvalidRequirement as error:
            raise ProvisioningError(
                f"{path}: {text!r} is not understood", do="write NAME==VERSION --hash=sha256:DIGEST on a line"
            ) from error
        if requirement.marker is None or requirement.marker.evaluate(target.environment()):
            name = canonicalize_name(requirement.name)
            versions[name] = versions.get(name, SpecifierSet()) & requirement.specifier
            if found := _HASH.findall(line):
                hashes[name] = frozenset(found)
    return Lock(versions, hashes)


def write_lock(wheels: Iterable[Wheel]) -> str:
    """The lock of exactly these files, as pip reads it with --require-hashes."""
    return "".join(f"{w.name}=={w.version} --hash=sha256:{w.sha256}\n" for w in sorted(wheels, key=lambda w: w.name))


def gather(
    roots: Sequence[Requirement], given: Sequence[Wheel], target: Target, lock: Lock, fetch_to: Path | None
) -> list[Wheel]:
    """Choose a wheel for everything that the roots need, and what those need; the newest version that all allow.

    Args:
        roots: what is wanted.
        given: wheels that are there already; others are fetched.
        target: where they must run.
        lock: what may be chosen.
        fetch_to: folder for what is fetched; None: nothing is.

    Raises:
        ProvisioningError: something is missing, or fits neither target nor lock.
    """
    pool = [wheel for wheel in given if wheel.runs_on(target)]
    for _ in range(_ROUNDS):
        chosen, missing = _choose(roots, pool, target, lock)
        if not missing:
            return sorted(chosen.values(), key=lambda wheel: wheel.name)
        if fetch_to is None:
            raise ProvisioningError(
                f"the wheelhouse lacks what fits {_words(target)}: {', '.join(missing)}",
                do="add those wheels, or leave --wheelhouse out so that pip fetches them",
            )
        before = set(fetch_to.iterdir())
        _fetch(missing, target, fetch_to)
        fresh = [read_wheel(path) for path in sorted(set(fetch_to.iterdir()) - before)]
        for wheel in fresh:
            if not _allowed(wheel, lock):
                raise ProvisioningError(
                    f"{wheel.path.name}: its SHA-256 is not in the lock", do="find out why before you trust it"
                )
        if not fresh:
            break
        pool += fresh
    raise ProvisioningError(
        f"no set of versions fits {_words(target)}: {', '.join(missing)}", do="pin versions that fit with --lock"
    )


def _choose(
    roots: Sequence[Requirement], pool: Sequence[Wheel], target: Target, lock: Lock
) -> tuple[dict[str, Wheel], list[str]]:
    """Follow requirements until no specifier changes what is chosen.

    Returns:
        The wheel of each project, and requirements that no wheel of the pool fulfils.
    """
    known: dict[str, SpecifierSet] = dict(lock.versions)
    while True:
        specifiers = dict(known)
        chosen: dict[str, Wheel] = {}
        missing: set[str] = set()
        waiting, seen = [(root, "") for root in roots], set()
        while waiting:
            requirement, extra = waiting.pop()
            if (str(requirement), extra) in seen or not _applies(requirement, extra, target):
                continue
            seen.add((str(requirement), extra))
            name = canonicalize_name(requirement.name)
            specifiers[name] = specifiers.get(name, SpecifierSet()) & requirement.specifier
            wheel = _newest(name, specifiers[name], pool, lock)
            if wheel is None:
                missing.add(name)
                continue
            chosen[name] = wheel
            waiting += [(needed, e) for needed in wheel.requires for e in ("", *sorted(requirement.extras))]
        if missing or specifiers == known:
            return chosen, [f"{name}{specifiers[name]}" for name in sorted(missing)]
        known = specifiers


def _applies(requirement: Requirement, extra: str, target: Target) -> bool:
    return requirement.marker is None or requirement.marker.evaluate({**target.environment(), "extra": extra})


def _newest(name: str, versions: SpecifierSet, pool: Sequence[Wheel], lock: Lock) -> Wheel | None:
    fitting = [
        wheel
        for wheel in pool
        if wheel.name == name and versions.contains(wheel.version, prereleases=True) and _allowed(wheel, lock)
    ]
    return max(fitting, key=lambda wheel: (wheel.version, wheel.path.name), default=None)


def _allowed(wheel: Wheel, lock: Lock) -> bool:
    return wheel.sha256 in lock.hashes.get(wheel.name, {wheel.sha256})


def _fetch(wanted: Sequence[str], target: Target, folder: Path) -> None:
    """Let pip fetch from the index that it is configured for."""
    platforms = [word for platform in target.platforms() for word in ("--platform", platform)]
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "download", "--no-deps"]
    command += ["--only-binary", ":all:", "--implementation", "cp", "--python-version", target.python_version]
    done = subprocess.run(
        [*command, *platforms, "--dest", str(folder), *wanted], capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")] or done.stderr.splitlines()
        raise ProvisioningError(
            f"pip cannot fetch a wheel for {_words(target)}: {', '.join(wanted)}\n   " + "\n   ".join(said[-3:]),
            do="check the network and pip's configuration, or name a folder of wheels with --wheelhouse",
        )


def _words(target: Target) -> str:
    return f"{target.name} (Python {target.python_version}, {target.machine})"
