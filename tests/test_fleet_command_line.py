"""`publish` and `pull`, as users type them."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lineward.export import signing
from lineward.runtime.images import write_png
from tests.runtime.station.stand_ins import until

pytest.importorskip("tuf", reason="tuf is not installed (lineward[fleet])")

PASSED, FAILED = 0, 2
STATION = """\
name = "press-4"
folder = "state"
deadline = "20s"
keys = "keys"
jobs = { 1 = "slots/tiny", 2 = "slots/other" }
camera = { kind = "replay", images = ["good.png"], rate = "5/s" }
engine = { threads = 1 }
[fleet]
repository = "repository"
root = "root.json"
products = { 1 = "tiny part" }
"""
ONLINE = ["--key", "online.key", "--key", "lister.key"]


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    monkeypatch.setattr(signing, "_SCRYPT_COST", 16)
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "a long secret")


@pytest.fixture
def here(tmp_path, monkeypatch, rebundle, golden_frames, lineward):
    """A workstation with keys, three signed bundles and a repository; beside it a station that trusts them."""
    monkeypatch.chdir(tmp_path)
    for name in ("packer", "root-1", "root-2", "targets", "online", "lister"):
        assert lineward("key", "new", name)[0] == PASSED
    for version in (1, 2, 3):
        Path(f"{version}.lineward").write_bytes(rebundle(version=version))
        assert lineward("sign", f"{version}.lineward", "--key", "packer.key")[0] == PASSED
    roots = ["--root", "root-1.key", "--root", "root-2.key", "--threshold", "2"]
    code, out, err = lineward(
        "publish", "init", "repository", *roots, "--targets", "targets.key", "--online", "online.key"
    )
    assert (code, err) == (PASSED, "")
    assert "copy repository/metadata/1.root.json to every station" in out
    delegated = ["--to", "lister.key", "--key", "targets.key", "--key", "online.key"]
    code, out, _ = lineward("publish", "delegate", "repository", "tiny part", *delegated)
    assert (code, out) == (PASSED, "tiny part: listed by lister\n")
    Path("keys").mkdir(mode=0o755)
    shutil.copy("packer.pub", "keys/packer.pub")
    shutil.copy("repository/metadata/1.root.json", "root.json")
    write_png(Path("good.png"), golden_frames[0])
    Path("station.toml").write_text(STATION)
    return tmp_path


@pytest.mark.usefixtures("here")
def test_published_pulled_and_recalled(lineward):
    code, out, _ = lineward("publish", "add", "repository", "1.lineward", *ONLINE)
    assert (code, out) == (PASSED, "tiny part 1: 100 % of all stations\n")
    assert lineward("pull", "station.toml") == (PASSED, "job 1: tiny part 1 deployed\n", "")
    assert lineward("publish", "add", "repository", "2.lineward", "--group", "hall-2", "--hold", *ONLINE)[1] == (
        "tiny part 2: groups hall-2, on hold\n"
    )
    stays = "job 1: tiny part 1 stays: nothing newer is for this station\n"
    assert lineward("pull", "station.toml") == (PASSED, stays, "")
    rollout = ["publish", "rollout", "repository", "tiny part", "2", *ONLINE]
    assert lineward(*rollout, "--no-hold")[1] == "tiny part 2: groups hall-2\n"
    assert lineward("pull", "station.toml")[1] == stays
    assert lineward(*rollout, "--percentage", "100")[1] == "tiny part 2: groups hall-2, 100 % of all stations\n"
    shutil.move("repository", "stick")
    assert lineward("pull", "station.toml", "--from", "stick")[1] == "job 1: tiny part 2 deployed, in place of 1\n"
    shutil.move("stick", "repository")
    recall = ["publish", "recall", "repository", "tiny part", "2", "--why", "scratches pass", *ONLINE]
    assert lineward(*recall)[1] == "tiny part 2: recalled: scratches pass\n"
    assert lineward("pull", "station.toml")[1] == "job 1: tiny part 2 recalled: scratches pass; back to 1\n"
    _, out, _ = lineward("slots", "station.toml", "--job", "1")
    assert "taken back" in out
    assert out.count("recalled: scratches pass") == 2  # of the history, and of what is refused
    _, out, _ = lineward("publish", "show", "repository")
    assert "2 of root-1" in out
    assert "recalled: scratches pass" in out
    assert lineward("publish", "refresh", "repository", "--key", "online.key", "--days", "30")[0] == PASSED


@pytest.mark.usefixtures("here")
def test_keys_are_rotated(lineward):
    lineward("key", "new", "online-2")
    lineward("publish", "add", "repository", "1.lineward", *ONLINE)
    roots = ["--key", "root-1.key", "--key", "root-2.key"]
    words = ["publish", "rotate", "repository", "online", "--to", "online-2.key", "--key", "online.key", *roots]
    code, out, err = lineward(*words)
    assert (code, out, err) == (PASSED, "online: 1 of online-2\n", "")
    assert lineward("pull", "station.toml")[0] == PASSED
    code, _, err = lineward("publish", "add", "repository", "2.lineward", *ONLINE)
    assert code == FAILED
    assert "snapshot: signed by 0 of the 1 keys that it takes" in err
    assert "online-2" in err


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["publish", "add", "nowhere", "1.lineward", *ONLINE], "holds no repository"),
        (["publish", "add", "repository", "1.lineward", "--key", "packer.pub"], "packer.pub: others than its owner"),
        (
            ["publish", "add", "repository", "1.lineward", "--key", "repository/x.key"],
            "lies in the folder that is served",
        ),
        (["publish", "refresh", "repository", "--key", "online.key", "--days", "0"], "--days 0"),
        (["pull", "station.toml"], "has no bundle of 'tiny part'"),
        (["pull", "station.toml", "--from", "keys"], "does not have a file"),
        (["pull", "bare.toml"], "has no table [fleet]"),
        (["pull", "file.toml"], "job 1 names the file of a bundle"),
    ],
)
def test_refused_with_a_reason_and_what_to_do(lineward, words, complaint):
    shutil.copy("online.key", "repository/x.key")
    Path("bare.toml").write_text(STATION.partition("[fleet]")[0])
    Path("file.toml").write_text(STATION.replace("slots/tiny", "1.lineward"))
    code, out, err = lineward(*words)
    assert (code, out) == (FAILED, "")
    assert complaint in err
    assert "  -> " in err


@pytest.mark.usefixtures("here")
def test_it_warns_before_lists_expire(lineward, monkeypatch):
    monkeypatch.setattr("lineward.export.fleet.lists.TARGETS_DAYS", 20)
    _, _, err = lineward("publish", "add", "repository", "1.lineward", *ONLINE)
    assert "WARNING: the list of tiny-part-" in err
    assert "lineward publish refresh" in err


@pytest.mark.usefixtures("here")
def test_it_goes_on_until_told(lineward):
    lineward("publish", "add", "repository", "1.lineward", *ONLINE)
    command = [sys.executable, "-c", "import sys; from lineward.runtime.cli import main; sys.exit(main())"]
    with Path("log").open("w") as log:
        process = subprocess.Popen([*command, "pull", "station.toml", "--every", "200ms"], stdout=log, stderr=log)
        try:
            until(lambda: "tiny part 1 stays" in Path("log").read_text(), "a second pull", 60)
            shutil.move("repository", "elsewhere")
            until(lambda: "does not have a file" in Path("log").read_text(), "no repository", 60)
            shutil.move("elsewhere", "repository")
            lineward("publish", "add", "repository", "2.lineward", *ONLINE)
            until(lambda: "2 deployed, in place of 1" in Path("log").read_text(), "version 2", 60)
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
    assert "Traceback" not in Path("log").read_text()


def test_without_tuf_the_extra_is_named():
    code = """
        import sys

        class Blocker:
            def find_spec(self, name, path=None, target=None):
                if name.partition(".")[0] in {"tuf", "securesystemslib"}:
                    raise ModuleNotFoundError(f"{name} is blocked", name=name)

        sys.meta_path.insert(0, Blocker())
        from lineward.runtime.cli import main
        print([main([word, "x"]) for word in ("pull", "publish")])
    """
    import textwrap

    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env=os.environ,
    )
    assert done.stdout == "[2, 2]\n", done.stderr
    assert done.stderr.count("pip install 'lineward[fleet]'") == 2
    assert "lineward: `lineward pull` needs tuf, which is not installed" in done.stderr


@pytest.mark.usefixtures("here")
def test_no_secret_is_published(lineward):
    lineward("publish", "add", "repository", "1.lineward", *ONLINE)
    sealed = json.loads(Path("online.key").read_text())["sealed"]
    for path in Path("repository").rglob("*"):
        assert path.is_dir() or sealed.encode() not in path.read_bytes()
