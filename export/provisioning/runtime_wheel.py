"""The wheel of Lineward itself: what runs here is what the device gets."""

from __future__ import annotations

import base64
import hashlib
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
_ADDED = {"INSTALLER", "REQUESTED", "direct_url.json"}
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
    return repack("lineward", folder)


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


def repack(name: str, folder: Path) -> Path:
    """A wheel (PEP 427) of an installed package's files, without what its installer added.

    Args:
        name: the distribution.
        folder: where to.

    Raises:
        ProvisioningError: it is not installed, or its files are not those that were installed.
    """
    try:
        installed = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError as error:
        raise ProvisioningError(f"{name} is not installed here", do="name its wheel with --wheel") from error
    kept = [f for f in installed.files or () if ".." not in f.parts and f.suffix != ".pyc" and f.name not in _ADDED]
    again = f"install {name} again, or name its wheel with --wheel"
    members: dict[str, bytes] = {}
    lines = []
    for file in kept:
        if file.name == "RECORD" or file.hash is None:
            continue
        try:
            members[str(file)] = file.read_binary()
        except OSError as error:
            raise ProvisioningError(f"{file}: cannot be read ({error.strerror})", do=again) from error
        digest = base64.urlsafe_b64encode(hashlib.sha256(members[str(file)]).digest()).rstrip(b"=").decode()
        if (file.hash.mode, file.hash.value) != ("sha256", digest):
            raise ProvisioningError(f"{file}: was changed since it was installed", do=again)
        lines.append(f"{file},sha256={digest},{file.size}\n")
    about = next((str(f.parent) for f in kept if f.name == "METADATA" and f.parent.suffix == ".dist-info"), None)
    if about is None or len({Path(member).parts[0] for member in members}) < 2:
        raise ProvisioningError(f"{name} lists no files of its own (an editable install?)", do=again)
    members[f"{about}/RECORD"] = ("".join(sorted(lines)) + f"{about}/RECORD,,\n").encode()
    tags = [
        line.split()[1].split("-") for line in members[f"{about}/WHEEL"].decode().splitlines() if line[:4] == "Tag:"
    ]
    compressed = "-".join(".".join(sorted({tag[part] for tag in tags})) for part in range(3))
    return _write(folder / f"{about.removesuffix('.dist-info')}-{compressed}.whl", members)


def _write(path: Path, members: Mapping[str, bytes]) -> Path:
    """A zip in which nothing depends on when, where and by whom it was made, nor on the version of zlib."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        for name in sorted(members):
            entry = zipfile.ZipInfo(name, _DATE)
            entry.compress_type = zipfile.ZIP_STORED
            entry.external_attr = 0o100644 << 16
            archive.writestr(entry, members[name])
    return path
