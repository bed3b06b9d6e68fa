"""Which wheels are chosen, for a device that is another machine with another Python."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from packaging.requirements import Requirement

from lineward.export.provisioning import wheelhouse
from lineward.export.provisioning.runtime_wheel import repack
from lineward.export.provisioning.target import TARGETS, Target, find_target
from lineward.export.provisioning.wheelhouse import NO_LOCK, gather, read_lock, write_lock
from lineward.export.provisioning.wheels import read_wheel
from lineward.runtime.errors import ProvisioningError

JETPACK6, JETPACK7 = TARGETS["jetpack6"], TARGETS["jetpack7"]


def make_wheel(folder: Path, name: str, version: str = "1", tag: str = "py3-none-any", **metadata) -> Path:
    """A wheel that holds a module of its name; `requires` is a list, other words are lines of METADATA."""
    path = folder / f"{name}-{version}-{tag}.whl"
    requires = metadata.pop("requires", [])
    lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {version}"]
    lines += [f"{key.replace('_', '-')}: {value}" for key, value in metadata.items()]
    lines += [f"Requires-Dist: {requirement}" for requirement in requires]
    about = f"{name}-{version}.dist-info"
    members = {f"{name}.py": "", f"{about}/METADATA": "\n".join(lines) + "\n"}
    members[f"{about}/WHEEL"] = f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n"
    members[f"{about}/RECORD"] = "".join(f"{member},,\n" for member in [*members, f"{about}/RECORD"])
    with zipfile.ZipFile(path, "w") as archive:
        for member, text in members.items():
            archive.writestr(zipfile.ZipInfo(member), text)
    return path


@pytest.fixture
def house(tmp_path):
    folder = tmp_path / "house"
    folder.mkdir()
    return folder


def chosen(house: Path, *roots: str, target: Target = JETPACK6, lock=NO_LOCK) -> dict[str, str]:
    wheels = [read_wheel(path) for path in sorted(house.glob("*.whl"))]
    found = gather([Requirement(root) for root in roots], wheels, target, lock, fetch_to=None)
    return {wheel.name: str(wheel.version) for wheel in found}


def test_markers_are_the_targets_and_not_of_this_interpreter(house):
    make_wheel(
        house,
        "app",
        requires=[
            "old; python_version < '3.11'",
            "new; python_version >= '3.11'",
            "arm; platform_machine == 'aarch64'",
            "intel; platform_machine == 'x86_64'",
            "windows; sys_platform == 'win32'",
        ],
    )
    for name in ("old", "new", "arm", "intel"):
        make_wheel(house, name)
    assert chosen(house, "app", target=JETPACK6).keys() == {"app", "old", "arm"}
    assert chosen(house, "app", target=JETPACK7).keys() == {"app", "new", "arm"}
    assert chosen(house, "app", target=find_target("x86_64", "3.10")).keys() == {"app", "old", "intel"}


def test_the_newest_that_all_allow_is_chosen_also_when_the_limit_comes_late(house):
    for version in ("1.0", "1.5", "2.0"):
        make_wheel(house, "base", version)
    make_wheel(house, "app", requires=["base>=1.0", "late"])
    make_wheel(house, "late", requires=["base<2"])
    assert chosen(house, "app") == {"app": "1", "late": "1", "base": "1.5"}


def test_extras_are_followed(house):
    make_wheel(
        house, "app", requires=["plc; extra == 'station'", "app[station]; extra == 'opcua'", "ua; extra == 'opcua'"]
    )
    make_wheel(house, "plc")
    make_wheel(house, "ua")
    assert chosen(house, "app").keys() == {"app"}
    assert chosen(house, "app[station]").keys() == {"app", "plc"}
    assert chosen(house, "app[opcua]").keys() == {"app", "plc", "ua"}


@pytest.mark.parametrize(
    ("tag", "runs"),
    [
        ("py3-none-any", True),
        ("cp310-cp310-manylinux_2_35_aarch64", True),
        ("cp310-cp310-manylinux_2_36_aarch64", False),
        ("cp37-abi3-manylinux_2_17_aarch64.manylinux2014_aarch64", True),
        ("cp311-abi3-manylinux_2_17_aarch64", False),
        ("cp310-cp310-linux_aarch64", True),
        ("cp310-cp310-manylinux_2_17_x86_64", False),
        ("cp312-cp312-manylinux_2_17_aarch64", False),
        ("cp310-cp310-musllinux_1_2_aarch64", False),
        ("cp310-cp310-win_arm64", False),
    ],
)
def test_wheels_that_do_not_run_on_the_target_are_not_chosen(house, tag: str, runs: bool):
    assert read_wheel(make_wheel(house, "base", tag=tag)).runs_on(JETPACK6) is runs
    if not runs:
        with pytest.raises(ProvisioningError, match=r"lacks what fits jetpack6 \(Python 3\.10, aarch64\): base"):
            chosen(house, "base")


def test_a_wheel_for_newer_pythons_alone_is_not_chosen(house):
    make_wheel(house, "base", "1")
    make_wheel(house, "base", "2", Requires_Python=">=3.11")
    assert chosen(house, "base", target=JETPACK6) == {"base": "1"}
    assert chosen(house, "base", target=JETPACK7) == {"base": "2"}


def test_the_lock_decides_version_and_file(house, tmp_path):
    for version in ("1", "2"):
        make_wheel(house, "base", version)
    path = tmp_path / "lock"
    path.write_text("# a remark\nbase==1 ; python_version < '3.11'\nBASE==2; python_version >= '3.11'  # why\n\n")
    assert chosen(house, "base", target=JETPACK6, lock=read_lock(path, JETPACK6)) == {"base": "1"}
    assert chosen(house, "base", target=JETPACK7, lock=read_lock(path, JETPACK7)) == {"base": "2"}

    wheels = [read_wheel(house / "base-1-py3-none-any.whl")]
    path.write_text(write_lock(wheels))
    assert chosen(house, "base", lock=read_lock(path, JETPACK6)) == {"base": "1"}
    with zipfile.ZipFile(wheels[0].path, "a") as archive:
        archive.writestr("more.py", "")
    with pytest.raises(ProvisioningError, match=r"lacks what fits .* base==1"):
        chosen(house, "base", lock=read_lock(path, JETPACK6))


def test_what_pip_fetches_must_be_of_the_lock(house, tmp_path, monkeypatch):
    path = tmp_path / "lock"
    path.write_text(f"base==1 --hash=sha256:{hashlib.sha256(b'another').hexdigest()}\n")
    monkeypatch.setattr(wheelhouse, "_fetch", lambda _wanted, _target, folder: make_wheel(folder, "base"))
    with pytest.raises(ProvisioningError, match=r"base-1-py3-none-any\.whl: its SHA-256 is not in the lock"):
        gather([Requirement("base")], [], JETPACK6, read_lock(path, JETPACK6), fetch_to=house)


def test_what_cannot_be_had_is_said(house, monkeypatch):
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(ProvisioningError, match="pip cannot fetch a wheel for jetpack6") as caught:
        gather([Requirement("base>=3")], [], JETPACK6, NO_LOCK, fetch_to=house)
    assert "--wheelhouse" in caught.value.do


@pytest.mark.parametrize("text", ["base @ file:///x y", "-r other.txt", "==1"])
def test_a_lock_that_is_not_understood_is_refused(tmp_path, text: str):
    path = tmp_path / "lock"
    path.write_text(text + "\n")
    with pytest.raises(ProvisioningError, match="is not understood"):
        read_lock(path, JETPACK6)


@pytest.mark.parametrize("name", ["base.whl", "base-1-py3-none-any.whl", "missing-1-py3-none-any.whl"])
def test_what_is_no_wheel_is_refused(house, name: str):
    if "missing" not in name:
        (house / name).write_bytes(b"PK\x03\x04 nothing")
    with pytest.raises(ProvisioningError, match=name):
        read_wheel(house / name)


@pytest.mark.parametrize(
    ("target", "python", "message"),
    [
        ("jetpack6", "3.10", "jetpack6 has Python 3.10"),
        ("x86_64", "3.9", "not a version"),
        ("x86_64", "4", "not a ver"),
    ],
)
def test_a_python_that_cannot_be_is_refused(target: str, python: str, message: str):
    with pytest.raises(ProvisioningError, match=message):
        find_target(target, python)


@given(
    versions=st.lists(st.integers(0, 9), min_size=1, max_size=5, unique=True),
    bounds=st.lists(st.tuples(st.sampled_from([">=", "<=", "!="]), st.integers(0, 9)), max_size=4),
)
def test_whatever_is_asked_for_the_newest_allowed_is_chosen_or_none(tmp_path_factory, versions, bounds):
    folder = tmp_path_factory.mktemp("house")
    for version in versions:
        make_wheel(folder, "base", str(version))
    roots = [f"base{operator}{bound}" for operator, bound in bounds] or ["base"]
    fits = {">=": int.__ge__, "<=": int.__le__, "!=": int.__ne__}
    allowed = [v for v in versions if all(fits[operator](v, bound) for operator, bound in bounds)]
    if allowed:
        assert chosen(folder, *roots) == {"base": str(max(allowed))}
    else:
        with pytest.raises(ProvisioningError):
            chosen(folder, *roots)


def test_an_installed_package_is_packed_again_as_pip_installs_it(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    first.mkdir()
    second.mkdir()
    wheel = repack("mdurl", first)
    assert wheel.read_bytes() == repack("mdurl", second).read_bytes()
    assert read_wheel(wheel).name == "mdurl"
    command = [sys.executable, "-m", "pip", "--isolated", "install", "--no-index", "--no-deps", "--target"]
    subprocess.run([*command, tmp_path / "site", wheel], check=True, capture_output=True)
    assert (tmp_path / "site" / "mdurl" / "__init__.py").exists()


def test_a_package_that_is_not_installed_cannot_be_packed(tmp_path):
    with pytest.raises(ProvisioningError, match="not-there is not installed here"):
        repack("not-there", tmp_path)
