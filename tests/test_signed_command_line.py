"""`key`, `sign`, and what stations with and without keys do, as users type it."""

from __future__ import annotations

import getpass
import json
import os
import subprocess
import sys
from datetime import datetime, timedelta, timezone
from pathlib import Path

import numpy as np
import pytest

from lineward.export import signing
from lineward.runtime.bundle import read_bundle
from lineward.runtime.images import write_png
from lineward.runtime.trust import AcceptAny
from tests.signers import Signer, write, write_keys

PASSED, FAILED = 0, 2
WARNING = "lineward: WARNING: this machine has no trusted keys and accepts ANY bundle"


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    monkeypatch.setattr(signing, "_SCRYPT_COST", 16)
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "a long secret")


@pytest.fixture
def here(tmp_path, monkeypatch, tiny_bytes, golden_frames):
    """A folder with a bundle and an image of a good part."""
    monkeypatch.chdir(tmp_path)
    Path("part.lineward").write_bytes(tiny_bytes)
    write_png(Path("good.png"), golden_frames[0])
    return tmp_path


def table(text):
    """The rows of a table of two columns."""
    cells = [row.split("│") for row in text.splitlines() if "│" in row]
    return {name.strip(): value.strip() for name, value in cells}


def in_days(days):
    return (datetime.now(timezone.utc) + timedelta(days=days)).date().isoformat()


@pytest.mark.usefixtures("here")
def test_from_a_key_to_a_station_that_takes_it(lineward):
    product = read_bundle("part.lineward", AcceptAny()).manifest.product
    words = ["--expires", in_days(400), "--product", product, "--product", "bolts"]
    assert lineward("key", "new", "line-1", *words)[0] == PASSED
    code, shown, _ = lineward("key", "show", "line-1.pub")
    assert code == PASSED
    assert lineward("key", "show", "line-1.key")[1] == shown
    facts = table(shown)
    assert facts["name"] == "line-1"
    assert facts["expires"] == f"after {in_days(400)}, UTC"
    assert facts["products"] == f"{product}, bolts"
    fingerprint = facts["fingerprint"]

    Path("keys").mkdir(mode=0o755)
    Path("line-1.pub").rename("keys/line-1.pub")
    for command in (["verify", "part.lineward"], ["inspect", "part.lineward", "good.png"]):
        code, out, err = lineward(*command, "--keys", "keys")
        assert (code, out) == (FAILED, "")
        assert "part.lineward: not signed, and this machine accepts signed bundles only" in err
        assert "lineward sign" in err

    code, out, _ = lineward("sign", "part.lineward", "--key", "line-1.key")
    assert code == PASSED
    assert out.startswith(f"part.lineward: signed by line-1 (key {fingerprint}), 20")
    code, out, err = lineward("verify", "part.lineward", "--keys", "keys")
    assert (code, err) == (PASSED, "")
    (row,) = [row for row in out.splitlines() if row.startswith("signature")]
    assert f"good: by line-1, key {fingerprint}, signed 20" in row
    assert f"key trusted until the end of {in_days(400)}, UTC" in row
    code, _, err = lineward("inspect", "part.lineward", "good.png", "--keys", "keys")
    assert code == PASSED
    assert "WARNING" not in err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("command", [["verify", "part.lineward"], ["inspect", "part.lineward", "good.png"]])
def test_a_machine_without_keys_says_so_at_every_start(lineward, command):
    for _ in range(2):
        code, _, err = lineward(*command)
        assert code == PASSED
        assert err.startswith(WARNING)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "command",
    [
        ["verify", "part.lineward"],
        ["inspect", "part.lineward", "good.png"],
        ["selfcheck", "part.lineward"],
        ["engine", "build", "part.lineward"],
        ["engine", "prune", "part.lineward"],
        ["evaluate", "part.lineward", "."],
    ],
    ids=" ".join,
)
def test_no_command_works_with_a_bundle_that_the_machine_refuses(lineward, command, monkeypatch):
    monkeypatch.setenv("LINEWARD_KEYS", str(write_keys(Path("keys"), Signer("ann").public)))
    code, out, err = lineward(*command)
    assert (code, out) == (FAILED, "")
    assert "not signed" in err


@pytest.mark.usefixtures("here")
def test_info_says_of_each_signature_whether_it_counts(lineward):
    assert table(lineward("info", "part.lineward")[1])["signature"] == "none"
    for name in ("ann", "ben"):
        lineward("key", "new", name)
        lineward("sign", "part.lineward", "--key", f"{name}.key")

    def signatures(*words):
        code, out, _ = lineward("info", "part.lineward", *words)
        assert code == PASSED
        return [row for row in out.splitlines() if row.startswith("signature")]

    rows = signatures()
    assert len(rows) == 2
    assert all("not checked, no trusted keys here" in row for row in rows)
    Path("keys").mkdir(mode=0o755)
    Path("ann.pub").rename("keys/ann.pub")
    ann, ben = signatures("--keys", "keys")
    assert "good: by ann" in ann
    assert "key trusted without end" in ann
    assert "does not count" in ben
    assert "not trusted on this machine" in ben
    write(Path("keys/revoked"), signing.read_key_file(Path("ann.key")).public.fingerprint.encode())
    ann, _ = signatures("--keys", "keys")  # of a bundle that this machine refuses
    assert "does not count: ann, key " in ann
    assert "the key is revoked" in ann


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("days", "said"), [(0, True), (29, True), (31, False)])
def test_a_key_that_is_about_to_expire_is_announced(lineward, days, said):
    lineward("key", "new", "ann", "--expires", in_days(days))
    lineward("sign", "part.lineward", "--key", "ann.key")
    Path("keys").mkdir(mode=0o755)
    Path("ann.pub").rename("keys/ann.pub")
    code, _, err = lineward("inspect", "part.lineward", "good.png", "--keys", "keys")
    assert code == PASSED
    assert (f"WARNING: this bundle is refused after {in_days(days)}" in err) == said


@pytest.mark.parametrize("newer", [["--expires", in_days(500)], []], ids=["later", "never"])
def test_a_newer_key_ends_the_announcement(lineward, here, newer):
    for name, words in (("old", ["--expires", in_days(5)]), ("new", newer)):
        lineward("key", "new", name, *words, "-o", here)
        lineward("sign", "part.lineward", "--key", f"{name}.key")
    (here / "keys").mkdir(mode=0o755)
    for name in ("old", "new"):
        (here / f"{name}.pub").rename(here / "keys" / f"{name}.pub")
    code, _, err = lineward("inspect", "part.lineward", "good.png", "--keys", "keys")
    assert code == PASSED
    assert "WARNING" not in err


def test_the_passphrase_of_a_new_key_is_asked_for_twice(lineward, here, monkeypatch):
    monkeypatch.delenv("LINEWARD_PASSPHRASE")
    typed = iter(["secret", "secert", "secret", "secret", "secret"])
    monkeypatch.setattr(getpass, "getpass", lambda _: next(typed))
    code, _, err = lineward("key", "new", "ann")
    assert code == FAILED
    assert "the two passphrases differ" in err
    assert not list(here.glob("ann.*"))
    assert lineward("key", "new", "ann")[0] == PASSED
    assert lineward("sign", "part.lineward", "--key", "ann.key")[0] == PASSED  # and to open one, once


@pytest.mark.usefixtures("here")
def test_a_key_that_cannot_be_opened_asks_for_no_passphrase(lineward, monkeypatch):
    monkeypatch.delenv("LINEWARD_PASSPHRASE")
    monkeypatch.setattr(getpass, "getpass", lambda _: pytest.fail("it was asked for"))
    code, _, err = lineward("sign", "part.lineward", "--key", "ann.key")
    assert code == FAILED
    assert "ann.key: cannot be read" in err


def bad_mode():
    Path("ann.key").chmod(0o644)


def changed_bundle():
    data = bytearray(Path("part.lineward").read_bytes())
    data[data.index(b"bank.safetensors") + 300] ^= 1
    Path("part.lineward").write_bytes(data)


FAILURES = {
    "wrong passphrase": (lambda: write(Path("p"), b"wrong", 0o600), "wrong passphrase"),
    "passphrase for all to see": (lambda: write(Path("p"), b"a long secret", 0o644), "chmod 600 p"),
    "empty passphrase": (lambda: write(Path("p"), b"", 0o600), "the passphrase is empty"),
    "no passphrase file": (lambda: Path("p").unlink(), "p: cannot be read"),
    "key for all to see": (bad_mode, "chmod 600 ann.key"),
    "no key": (lambda: Path("ann.key").unlink(), "ann.key: cannot be read"),
    "the public key": (lambda: Path("ann.pub").replace("ann.key").chmod(0o600), "not a private key"),
    "tampered bundle": (changed_bundle, "not a bundle, or damaged"),
    "no bundle": (lambda: Path("part.lineward").unlink(), "part.lineward: cannot be read"),
}


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", FAILURES)
def test_signing_that_fails_leaves_the_bundle_and_says_why(lineward, name):
    lineward("key", "new", "ann")
    write(Path("p"), b"a long secret\n", 0o600)
    make, what = FAILURES[name]
    make()
    before = Path("part.lineward").read_bytes() if Path("part.lineward").exists() else None
    code, out, err = lineward("sign", "part.lineward", "--key", "ann.key", "--passphrase-file", "p")
    assert (code, out) == (FAILED, "")
    assert what in err
    assert "\n  -> " in err
    assert before is None or Path("part.lineward").read_bytes() == before


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    "words",
    [
        ["key"],
        ["key", "new"],
        ["key", "new", "k", "--expires", "tomorrow"],
        ["key", "new", "k", "--expires", "2030-02-30"],
        ["key", "show"],
        ["sign", "part.lineward"],
    ],
)
def test_words_that_make_no_command(lineward, words):
    code, out, err = lineward(*words)
    assert (code, out) == (FAILED, "")
    assert err.startswith(f"usage: lineward {words[0]}")


@pytest.mark.parametrize(("there", "what"), [("missing.pub", "cannot be read"), ("bad.pub", "not a public key")])
def test_showing_what_is_no_key(lineward, here, there, what):
    write(here / "bad.pub", b"ssh-ed25519 AAAA")
    code, _, err = lineward("key", "show", there)
    assert code == FAILED
    assert f"{there}: {what}" in err


# In processes of their own, at the full cost of a passphrase

BLOCK = """
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "timm", "onnx", "sklearn", "jinja2"}:
            raise ModuleNotFoundError(name, name=name)
import sys
sys.meta_path.insert(0, Blocker())
from lineward.runtime.cli import main
sys.exit(main())
"""


def process(*words, **variables):
    done = subprocess.run(
        [sys.executable, "-c", BLOCK, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=os.environ | variables,
        timeout=120,
        check=False,
        start_new_session=True,  # no terminal to ask on
    )
    assert "Traceback" not in done.stderr
    return done.returncode, done.stdout, done.stderr


@pytest.mark.usefixtures("here")
def test_keys_and_signatures_need_none_of_the_workstations_packages(monkeypatch):
    monkeypatch.delenv("LINEWARD_PASSPHRASE")
    code, _, err = process("key", "new", "ann")
    assert code == FAILED
    assert "there is no terminal to ask for the passphrase on" in err
    assert not list(Path().glob("ann.*"))
    assert process("key", "new", "ann", LINEWARD_PASSPHRASE="secret")[0] == PASSED
    assert process("sign", "part.lineward", "--key", "ann.key", LINEWARD_PASSPHRASE="secret")[0] == PASSED
    Path("keys").mkdir(mode=0o755)
    Path("ann.pub").rename("keys/ann.pub")
    code, out, err = process("inspect", "part.lineward", "good.png", "--format", "jsonl", LINEWARD_KEYS="keys")
    assert code == PASSED
    assert json.loads(out)["verdict"] == "pass"
    assert np.isfinite(json.loads(out)["score"])


STATION = "from lineward.runtime import read_bundle; read_bundle('part.lineward')"


@pytest.mark.usefixtures("here")
def test_a_program_of_ones_own_is_warned_on_standard_error_too():
    done = subprocess.run([sys.executable, "-c", STATION], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0
    assert "part.lineward: accepted whoever made it, since this machine has no trusted keys" in done.stderr
