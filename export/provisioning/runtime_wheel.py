"""The wheel of Lineward itself: what runs here is what the device gets."""

from __future__ import annotations

import importlib.metadata
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Mapping
from pathlib import Path

import lineward.runtime
from lineward.runtime.errors import ProvisioningError

_DATE = (1980, 1, 1, 0, 0, 0)
_SOURCES = ("pyproject.toml", "README.md", "LICENSE", "runtime", "calibration", "export")


def make_runtime_wheel(folder: Path) -> Path:
    """Write the wheel: built from the checkout that this runs from, else packed again from the installed files.

    The same sources give the same bytes.

    Args:
        folder: where to; must be empty.

    Raises:
        ProvisioningError: it cannot be built, or the installed files are not those that were installed.
    """
    checkout = Path(lineward.runtime.__file__).resolve().parent.parent
    if (checkout / "pyproject.toml").exists() and (checkout / "runtime").is_dir():
        return _build(checkout, folder)
    return _repack(folder)


def _build(checkout: Path, folder: Path) -> Path:
    # From a copy: setuptools leaves folders in the tree that it builds, and would pack a deleted module from them.
    tree, built = folder / "tree", folder / "built"
    for name in _SOURCES:
        source = checkout / name
        if source.is_dir():
            shutil.copytree(source, tree / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            tree.mkdir(exist_ok=True)
            shutil.copy(source, tree / name)
    command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "wheel", "--no-deps"]
    done = subprocess.run([*command, "--wheel-dir", str(built), str(tree)], capture_output=True, text=True, check=False)
    if done.returncode:
        raise ProvisioningError(
            f"{checkout}: its wheel cannot be built\n   {done.stderr.strip()[-500:]}",
            do="build it yourself (`pip wheel --no-deps .`) and name it with --wheel",
        )
    (wheel,) = built.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    return _write(folder / wheel.name, members)


def _repack(folder: Path) -> Path:
    """A wheel of the installed files that RECORD lists (PEP 427), without what the installer added."""
    try:
        installed = importlib.metadata.distribution("lineward")
    except importlib.metadata.PackageNotFoundError as error:
        raise ProvisioningError("lineward is not installed here", do="name its wheel with --wheel") from error
    added = {"INSTALLER", "REQUESTED", "direct_url.json"}
    kept = [f for f in installed.files or () if ".." not in f.parts and f.suffix != ".pyc" and f.name not in added]
    members: dict[str, bytes] = {}
    record = ""
    for file in sorted(kept, key=str):
        if file.name == "RECORD":
            record = str(file)
            continue
        if file.hash is None or not Path(str(file.locate())).is_file():
            raise ProvisioningError(f"{file}: missing, or without a hash", do="install lineward again, or use --wheel")
        members[str(file)] = file.read_binary()
    if not record or len(members) < 10:
        raise ProvisioningError(
            "the installed lineward lists too few files (an editable install elsewhere?)", do="name its wheel: --wheel"
        )
    lines = [f"{f},{f.hash.mode}={f.hash.value},{f.size}\n" for f in kept if str(f) in members and f.hash]
    members[record] = ("".join(sorted(lines)) + f"{record},,\n").encode()
    return _write(folder / f"lineward-{installed.version}-py3-none-any.whl", members)


def _write(path: Path, members: Mapping[str, bytes]) -> Path:
    """A zip in which nothing depends on when, where and by whom it was made."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, members[name])
    return path
