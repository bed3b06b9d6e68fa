"""`manifest.sig`: one form, no other; and what a signature covers."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.errors import BundleError, SignatureError
from lineward.runtime.signature import decode_signatures, encode_signatures, signed_message
from tests.signers import Signer

SHA256 = "0123456789abcdef" * 4
ONE, TWO = Signer("one"), Signer("two")


def encoded(**changes):
    """A member with other fields in its one signature; a field of None is left out."""
    (fields,) = json.loads(encode_signatures((ONE.sign(SHA256),)))
    fields = {name: value for name, value in (fields | changes).items() if value is not None}
    return json.dumps([fields], separators=(",", ":")).encode() + b"\n"


def test_round_trip():
    signatures = (ONE.sign(SHA256), TWO.sign(SHA256))
    assert decode_signatures(encode_signatures(signatures), "b") == signatures
    assert decode_signatures(encoded(), "b") == (ONE.sign(SHA256),)


def test_the_bytes_that_are_signed_stay_as_they_are():
    """Else signatures that stations hold would be worth nothing."""
    assert signed_message(SHA256, "2026-06-15T12:00:00Z") == (
        b"lineward bundle 1\n2026-06-15T12:00:00Z\n" + SHA256.encode() + b"\n"
    )


MARK = base64.b64encode(bytes(64)).decode()
MALFORMED = {
    "empty": b"",
    "no-json": b"0" * 64,
    "no-text": b"\xff\xfe[]",
    "null": b"null\n",
    "object": b"{}\n",
    "no-signature": b"[]\n",
    "deep": b"[" * 10_000,
    "a-word-of-its-own": b'["x"]\n',
    "cut": encoded()[: len(encoded()) // 2],
    "last-byte-missing": encoded()[:-1],
    "something-behind": encoded() + b"\n",
    "something-before": b" " + encoded(),
    "spaces-inside": encoded().replace(b",", b", "),
    "a-field-twice": encoded().replace(b'{"key"', b'{"key":"' + b"0" * 64 + b'","key"'),
    "escaped": encoded().replace(b"Z", b"\\u005a"),
    "fields-turned": json.dumps([dict(reversed(json.loads(encoded())[0].items()))]).encode() + b"\n",
    "an-unknown-field": encoded(algorithm="none"),
    "no-key": encoded(key=None),
    "key-of-capitals": encoded(key="A" * 64),
    "key-too-short": encoded(key="0" * 63),
    "key-and-a-line": encoded(key="0" * 64 + "\n"),
    "no-time": encoded(signed=None),
    "time-of-another-zone": encoded(signed="2026-06-15T12:00:00+02:00"),
    "time-with-fractions": encoded(signed="2026-06-15T12:00:00.5Z"),
    "time-and-a-line": encoded(signed="2026-06-15T12:00:00Z\n"),
    "no-such-day": encoded(signed="2026-02-30T12:00:00Z"),
    "no-such-hour": encoded(signed="2026-02-03T25:00:00Z"),
    "year-0": encoded(signed="0000-01-01T00:00:00Z"),
    "digits-of-another-script": encoded(signed="٢٠٢٦-06-15T12:00:00Z"),
    "no-mark": encoded(signature=None),
    "mark-too-short": encoded(signature=base64.b64encode(bytes(63)).decode()),
    "mark-too-long": encoded(signature=base64.b64encode(bytes(65)).decode()),
    "mark-of-another-alphabet": encoded(signature=MARK[:-3] + "_=="),
    "mark-not-canonical": encoded(signature=MARK[:-3] + "B=="),
    "mark-not-base64": encoded(signature="?" * 88),
    "one-key-twice": encode_signatures((ONE.sign(SHA256), ONE.sign(SHA256))),
    "too-many": encode_signatures(tuple(Signer(str(n)).sign(SHA256) for n in range(17))),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_what_is_malformed_is_refused(name):
    with pytest.raises(SignatureError) as caught:
        decode_signatures(MALFORMED[name], "part.lineward")
    assert isinstance(caught.value, BundleError)
    assert caught.value.what.startswith("part.lineward: manifest.sig ")
    assert "lineward sign" in caught.value.do


@given(st.binary(max_size=400) | st.recursive(st.none() | st.text() | st.integers(), st.lists).map(json.dumps))
def test_bytes_of_any_kind_are_refused(data):
    with pytest.raises(SignatureError):
        decode_signatures(data if isinstance(data, bytes) else data.encode(), "b")


def test_a_signature_is_of_one_key_bundle_and_time():
    signature = ONE.sign(SHA256)
    assert signature.is_by(ONE.public.key, SHA256)
    assert not signature.is_by(TWO.public.key, SHA256)
    assert not signature.is_by(ONE.public.key, SHA256[::-1])
    other = ONE.sign_text(SHA256, "2026-06-15T12:00:01Z")
    assert other.is_by(ONE.public.key, SHA256)
    assert other.signature != signature.signature


@given(st.text(alphabet="0123456789abcdef", min_size=64, max_size=64))
def test_no_other_bundle_is_signed(sha256):
    assert ONE.sign(SHA256).is_by(ONE.public.key, sha256) == (sha256 == SHA256)


@pytest.mark.parametrize("key", [b"", bytes(31), b"\xff" * 32])
def test_what_is_no_key_signs_nothing(key):
    assert not ONE.sign(SHA256).is_by(key, SHA256)
