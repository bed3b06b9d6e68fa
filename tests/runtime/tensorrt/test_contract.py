"""What our TensorRT modules use exists in every release that they claim to support."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest

from lineward.runtime.engines import tensorrt as engine
from lineward.runtime.tensorrt import api
from tests.tensorrt_double import Bench, tensorrt_double

SURFACES = Path(__file__).with_name("surfaces")
RELEASES = ("10.3.0", "10.13.3.9", "11.4.0.106")
API = Path(api.__file__)
MODULES = sorted([*API.parent.glob("*.py"), Path(engine.__file__)])


def recorded(name: str) -> dict[str, list[str]]:
    return json.loads((SURFACES / f"{name}.json").read_text())


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(), str(path))


def declared(module: ast.Module) -> set[tuple[str, str]]:
    """(class, member) for every member that a protocol declares, dunders apart."""
    return {
        (definition.name, name)
        for definition in module.body
        if isinstance(definition, ast.ClassDef)
        for member in definition.body
        if (name := getattr(member, "name", getattr(getattr(member, "target", None), "id", "")))
        and not name.startswith("_")
    }


def chained(module: ast.Module) -> set[tuple[str, str]]:
    """(X, Y) for every `trt.X.Y`, and (X, "") for every `trt.X`."""
    uses = set()
    for node in ast.walk(module):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "trt":
            uses.add((node.attr, ""))
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute):
            owner = node.value
            if isinstance(owner.value, ast.Name) and owner.value.id == "trt":
                uses.add((owner.attr, node.attr))
    return {use for use in uses if use[0] not in ("__name__", "__version__")}


def missing(uses: set[tuple[str, str]], surface: dict[str, list[str]]) -> list[str]:
    return sorted(
        f"{owner}.{member}" for owner, member in uses if owner not in surface or member not in ["", *surface[owner]]
    )


@pytest.mark.parametrize("release", RELEASES)
def test_every_declared_member_exists(release: str) -> None:
    uses = declared(tree(API))
    assert len(uses) > 30
    assert missing(uses, recorded(release)) == []


@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_module_attribute_exists(path: Path, release: str) -> None:
    assert missing(chained(tree(path)), recorded(release)) == []


def test_the_modules_do_use_tensorrt() -> None:
    used = set().union(*(chained(tree(path)) for path in MODULES))
    assert {("NetworkDefinitionCreationFlag", "STRONGLY_TYPED"), ("Runtime", ""), ("OnnxParser", "")} <= used


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_nothing_that_is_gone_is_named(path: Path) -> None:
    gone = {member for members in recorded("gone").values() for member in members}
    assert {"EXPLICIT_BATCH", "FP16", "INT8", "set_dynamic_range", "IInt8Calibrator"} <= gone
    used = {node.attr for node in ast.walk(tree(path)) if isinstance(node, ast.Attribute)}
    assert used & gone == set()


@pytest.mark.parametrize("path", MODULES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_every_object_from_tensorrt_carries_its_protocol(path: Path) -> None:
    """So that the type checker sees every later use of it."""
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Assign):
            assert not isinstance(node.value, ast.Call) or "trt" not in called(node.value), ast.unparse(node)
        if isinstance(node, ast.AnnAssign) and isinstance(node.value, ast.Call) and "trt" in called(node.value):
            assert ast.unparse(node.annotation) == called(node.value)["trt"], ast.unparse(node)


def called(call: ast.Call) -> dict[str, str]:
    """{"trt": X} for a call of `trt.X`."""
    function = call.func
    if isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name):
        return {function.value.id: function.attr}
    return {}


@pytest.mark.parametrize(
    ("code", "found"),
    [
        ("trt.BuilderFlag.FP16", ["BuilderFlag.FP16"]),
        (
            "trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH",
            ["NetworkDefinitionCreationFlag.EXPLICIT_BATCH"],
        ),
        ("trt.IInt8EntropyCalibrator2()", ["IInt8EntropyCalibrator2."]),
        ("trt.BuilderFlag.TF32", []),
    ],
)
def test_the_check_finds_what_is_gone(code: str, found: list[str]) -> None:
    assert missing(chained(ast.parse(code)), recorded("11.4.0.106")) == found


@pytest.mark.parametrize("release", RELEASES)
def test_the_double_offers_nothing_that_tensorrt_does_not(release: str) -> None:
    surface = recorded(release)
    for part in tensorrt_double(Bench()).parts:
        assert {name for name in vars(part) if not name.startswith("_")} <= set(surface[part.__name__])
