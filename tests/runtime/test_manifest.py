from __future__ import annotations

import contextlib
import json
import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.errors import BundleError
from lineward.runtime.manifest import FORMAT, DriftReference, Manifest, decode_manifest, encode_manifest

DELETE = object()


@pytest.fixture
def edited(tiny):
    """The tiny bundle's manifest as JSON, with one value changed, added or deleted."""

    def edit(path, value):
        document = json.loads(encode_manifest(tiny.manifest))
        *folders, last = path
        inner = document
        for key in folders:
            inner = inner[key]
        if value is DELETE:
            del inner[last]
        else:
            inner[last] = value
        return json.dumps(document).encode()

    return edit


def test_round_trip(tiny):
    data = encode_manifest(tiny.manifest)
    assert decode_manifest(data, "tiny") == tiny.manifest
    assert encode_manifest(decode_manifest(data, "tiny")) == data


def test_a_bundle_of_before_confidence_is_read_as_it_was(tiny):
    written = encode_manifest(tiny.manifest)
    assert tiny.manifest.threshold.bound is None
    assert not {"confidence", "bound", "folds", "extrapolation", "escapes"} & json.loads(written)["threshold"].keys()


def test_people_can_read_it(tiny):
    lines = encode_manifest(tiny.manifest).decode("ascii").splitlines()
    assert lines[0] == "{"
    assert '  "product": "tiny part",' in lines
    assert lines[-1] == "}"


def test_a_bundle_from_before_drift_detection_has_no_reference(tiny):
    assert tiny.manifest.drift is None
    assert b"drift" not in encode_manifest(tiny.manifest)


def test_a_drift_reference_survives(edited):
    data = edited(["drift"], REFERENCE)
    manifest = decode_manifest(data, "tiny")
    assert manifest.drift == DriftReference(*[(0.1, 0.2)] * 6)
    assert decode_manifest(encode_manifest(manifest), "tiny") == manifest


@pytest.mark.parametrize(
    "change", [{"score": ["a"]}, {"score": 1}, {"more": [1]}, {"colour": [None]}, {"sharpness": [0.0] * 4097}]
)
def test_a_malformed_drift_reference_is_refused(edited, change):
    with pytest.raises(BundleError, match="drift"):
        decode_manifest(edited(["drift"], {**REFERENCE, **change}), "here.lineward")


def test_order_of_members_does_not_change_the_bytes(tiny):
    turned = dict(reversed(tiny.manifest.members.items()))
    manifest = msgspec.structs.replace(tiny.manifest, members=turned)
    assert encode_manifest(manifest) == encode_manifest(tiny.manifest)


def test_it_is_frozen(tiny):
    with pytest.raises(AttributeError):
        tiny.manifest.threshold.value = 2.0


OPTIONAL = {"conversion", "drift", "tiles"}  # older bundles lack it
REFERENCE = {name: [0.1, 0.2] for name in DriftReference.__struct_fields__}


@pytest.mark.parametrize("field", [field for field in Manifest.__struct_fields__ if field not in OPTIONAL])
def test_every_field_is_required(field, edited):
    with pytest.raises(BundleError, match=r"here\.lineward: manifest\.json"):
        decode_manifest(edited([field], DELETE), "here.lineward")


@pytest.mark.parametrize(
    "path",
    [
        [],
        ["preprocessing"],
        ["grid"],
        ["score"],
        ["threshold"],
        ["origin"],
        ["golden", 0],
        ["members", "embedding.onnx"],
    ],
    ids=str,
)
def test_no_field_may_be_added(path, edited):
    with pytest.raises(BundleError, match="unknown field"):
        decode_manifest(edited([*path, "extra"], 1), "here.lineward")


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (0, "bundle format 0 is not known"),
        (FORMAT + 1, f"bundle format {FORMAT + 1} is not known"),
        (-1, "bundle format -1 is not known"),
        (10**30, f"bundle format {10**30} is not known"),
        ("1", "names no format"),
        (1.0, "names no format"),
        (None, "names no format"),
        (True, "is not valid"),
        (DELETE, "names no format"),
    ],
)
def test_formats(found, what, edited):
    with pytest.raises(BundleError, match=what) as caught:
        decode_manifest(edited(["format"], found), "here.lineward")
    assert "here.lineward" in caught.value.what
    assert caught.value.do


@pytest.mark.parametrize("document", ["[]", "1", "null", '"text"', "[{}]", "{}"])
def test_a_document_that_is_no_manifest(document):
    with pytest.raises(BundleError, match="names no format"):
        decode_manifest(document.encode(), "here.lineward")


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (["product"], ""),
        (["product"], "x" * 129),
        (["product"], 1),
        (["version"], 0),
        (["version"], 1.5),
        (["rows"], 0),
        (["rows"], 1 << 25),
        (["grid", "rows"], 0),
        (["grid", "rows"], 1 << 20),
        (["grid", "columns"], -8),
        (["grid", "dimensions"], 1 << 25),
        (["score", "map_width"], 7),
        (["score", "map_height"], 8193),
        (["score", "sigma"], 0),
        (["score", "sigma"], 65),
        (["score", "image_score"], "mean"),
        (["threshold", "value"], -0.1),
        (["threshold", "value"], 2.1),
        (["threshold", "value"], None),
        (["threshold", "value"], "0.1"),
        (["threshold", "false_reject_rate"], 0),
        (["threshold", "false_reject_rate"], 1),
        (["threshold", "sample_size"], 0),
        (["threshold", "confidence"], 1),
        (["threshold", "bound"], {"rate": 1.1, "confidence": 0.95}),
        (["threshold", "folds"], 0),
        (["threshold", "extrapolation"], {}),
        (["threshold", "data_sha256"], "0" * 63),
        (["threshold", "escapes"], {"defects": 0}),
        (["golden_tolerance"], 0),
        (["golden_tolerance"], 0.2),
        (["golden", 0, "preprocessed_sha256"], "A" * 64),
        (["golden", 0, "image"], 5),
        (["members", "embedding.onnx", "sha256"], "0" * 63),
        (["members", "embedding.onnx", "size"], -1),
        (["preprocessing", "width"], 7),
        (["preprocessing", "height"], 8193),
        (["preprocessing", "width"], 64.5),
        (["preprocessing", "resize"], "bilinear"),
        (["preprocessing", "depth"], "linear"),
        (["preprocessing", "colour"], "BGR"),
    ],
    ids=lambda value: ".".join(map(str, value)) if isinstance(value, list) else repr(value)[:20],
)
def test_values_out_of_range(path, value, edited):
    with pytest.raises(BundleError) as caught:
        decode_manifest(edited(path, value), "here.lineward")
    assert caught.value.what.startswith("here.lineward: ")
    assert caught.value.do


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
@pytest.mark.parametrize("path", [["threshold", "value"], ["origin", "tau"], ["golden", 0, "image_score"]], ids=str)
def test_numbers_that_are_not_finite(number, path, edited):
    data = edited(path, "here").replace(b'"here"', number.encode())
    with pytest.raises(BundleError, match="is not valid"):
        decode_manifest(data, "here.lineward")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{",
        b"\0" * 100,
        b"\xff\xfe{}",
        b'{"format": 1',
        b'{"format": "\xff"}',
        b'{"format": 1}{}',
        b'{"format": 1, "product": "\\ud800"}',
        b"[" * 100_000,
        b'{"format":' * 100_000,
    ],
    ids=lambda data: repr(data)[:20],
)
def test_bytes_that_are_no_json(data):
    with pytest.raises(BundleError, match=r"here\.lineward: manifest\.json") as caught:
        decode_manifest(data, "here.lineward")
    assert caught.value.do


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused(data):
    with pytest.raises(BundleError):
        decode_manifest(data, "here.lineward")


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_arbitrary_values_are_kept_or_refused(tiny, data):
    document = json.loads(encode_manifest(tiny.manifest))
    field = data.draw(st.sampled_from(sorted(document)))
    if isinstance(document[field], dict) and data.draw(st.booleans()):
        document[field][data.draw(st.sampled_from(sorted(document[field])))] = data.draw(json_values)
    else:
        document[field] = data.draw(json_values)
    with contextlib.suppress(BundleError):
        manifest = decode_manifest(json.dumps(document).encode(), "here.lineward")
        assert math.isfinite(manifest.threshold.value)
        assert decode_manifest(encode_manifest(manifest), "again") == manifest
