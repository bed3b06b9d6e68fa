"""`deploy`, `rollback`, `slots`, and permits to go back, as users type them."""

from __future__ import annotations

from pathlib import Path

import pytest

from lineward.export import signing
from lineward.runtime.bundle import read_bundle
from lineward.runtime.images import write_png
from lineward.runtime.trust import AcceptAny

PASSED, FAILED = 0, 2
STATION = """\
name = "desk"
folder = "state"
deadline = "20s"
jobs = { 1 = "slots/tiny", 2 = "two.lineward", 3 = "slots/three" }
camera = { kind = "replay", images = ["good.png"], rate = "5/s" }
engine = { threads = 1 }
"""


@pytest.fixture(autouse=True)
def cheap_passphrases(monkeypatch):
    monkeypatch.setattr(signing, "_SCRYPT_COST", 16)
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "a long secret")


@pytest.fixture
def here(tmp_path, monkeypatch, rebundle, golden_frames):
    """A folder with a station file and bundles of three versions."""
    monkeypatch.chdir(tmp_path)
    for version in (1, 2, 3):
        Path(f"{version}.lineward").write_bytes(rebundle(version=version))
    Path("two.lineward").write_bytes(rebundle())
    write_png(Path("good.png"), golden_frames[0])
    Path("station.toml").write_text(STATION)
    return tmp_path


def rows(text):
    """The rows of a table, as texts."""
    return [[cell.strip() for cell in row.split("│")] for row in text.splitlines() if "│" in row]


@pytest.mark.usefixtures("here")
def test_deploy_roll_back_and_look(lineward):
    code, out, _ = lineward("slots", "station.toml")
    assert code == PASSED
    assert "nothing deployed yet" in out
    for version in (1, 2):
        code, out, err = lineward("deploy", "station.toml", f"{version}.lineward")
        assert code == PASSED, err
        assert err.startswith("lineward: WARNING: this machine has no trusted keys")
    found = dict(rows(out))
    assert found["job 1"] == "tiny part 2, active"
    assert found["before it"] == "1"
    assert found["inspection"].endswith("of 16000.0 ms")
    code, out, _ = lineward("slots", "station.toml", "--job", "1")
    assert [row[1:] for row in rows(out)[:2]] == [
        ["active", "whole, trusted; not yet proven on the line"],
        ["before", "whole, trusted"],
    ]
    code, out, _ = lineward("rollback", "station.toml", "--why", "more rejects since noon")
    assert (code, out) == (PASSED, "job 1: tiny part 1 is active again\n")
    code, out, _ = lineward("slots", "station.toml", "--job", "1")
    assert [row[1:] for row in rows(out) if "more rejects" in row[-1]] == [
        ["rolled back", rows(out)[0][0], "more rejects since noon"]
    ]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["deploy", "station.toml", "1.lineward"], "version 1 is older than 2"),
        (["deploy", "station.toml", "none.lineward"], "none.lineward: cannot be read"),
        (["deploy", "station.toml", "good.png"], "not a bundle"),
        (["deploy", "station.toml", "3.lineward", "--job", "2"], "job 2 names the file of a bundle"),
        (["deploy", "station.toml", "3.lineward", "--job", "4"], "no job 4 in the station file"),
        (["deploy", "station.toml", "1.lineward", "--permit", "good.png"], "good.png: not a permit"),
        (["rollback", "station.toml"], "there is no bundle before the active one"),
        (["rollback", "station.toml", "--job", "3"], "there is no bundle before the active one"),
        (["slots", "station.toml", "--job", "2"], "job 2 names the file of a bundle"),
        (["run", "station.toml", "--check"], "no bundle is active for job 3"),
        (["simulate", "station.toml"], "no bundle is active for job 3"),
    ],
)
def test_refused_with_a_reason_and_what_to_do(lineward, words, complaint):
    assert lineward("deploy", "station.toml", "2.lineward")[0] == PASSED
    code, out, err = lineward(*words)
    assert (code, out) == (FAILED, "")
    assert complaint in err
    assert "  -> " in err
    assert "tiny part" in lineward("slots", "station.toml")[1]


@pytest.mark.usefixtures("here")
def test_too_slow_for_the_station(lineward):
    Path("station.toml").write_text(STATION.replace("20s", "1us"))
    code, _, err = lineward("deploy", "station.toml", "1.lineward")
    assert code == FAILED
    assert "too slow for this station: p99 of 100 inspections" in err
    assert "the deadline of 0.001 ms less 20%" in err
    assert "nothing deployed yet" in lineward("slots", "station.toml")[1]


@pytest.mark.usefixtures("here")
def test_other_results_on_this_device(lineward, rebundle, tiny):
    changed = {name: data for name, data in tiny.members.items() if name.startswith("golden/")}
    first, second = (golden.scores for golden in tiny.manifest.golden[:2])
    changed[first] = tiny.members[second]
    Path("3.lineward").write_bytes(rebundle(changed, version=3))
    code, _, err = lineward("deploy", "station.toml", "3.lineward")
    assert code == FAILED
    assert "patch scores differ" in err


@pytest.mark.usefixtures("here")
def test_the_check_of_a_station_looks_at_what_is_active(lineward):
    for job in ("1", "3"):
        lineward("deploy", "station.toml", "2.lineward", "--job", job)
    code, out, err = lineward("run", "station.toml", "--check")
    assert code == PASSED, err
    assert dict(rows(out))["job 1"].startswith("tiny part 2, golden images equal")


@pytest.mark.usefixtures("here")
def test_a_damaged_bundle_is_not_gone_back_to(lineward):
    for version in (1, 2, 3):
        lineward("deploy", "station.toml", f"{version}.lineward")
    (two,) = Path("slots/tiny").glob("2-*.lineward")
    two.write_bytes(two.read_bytes()[:-100])
    code, out, err = lineward("rollback", "station.toml")
    assert (code, out) == (PASSED, "job 1: tiny part 1 is active again\n")
    assert "passed over" in err


@pytest.mark.usefixtures("here")
def test_a_damaged_pointer_is_told_of(lineward):
    for version in (1, 2):
        lineward("deploy", "station.toml", f"{version}.lineward")
    Path("slots/tiny/active").write_bytes(b"rot")
    code, out, err = lineward("slots", "station.toml")
    assert code == PASSED
    assert "WARNING" in err
    assert "active is missing or damaged" in err
    assert [row[1] for row in rows(out)[:2]] == ["active", "newest ever"]


@pytest.mark.usefixtures("here")
def test_damaged_slots_are_mended(lineward):
    lineward("deploy", "station.toml", "2.lineward")
    for path in Path("slots/tiny").glob("active*"):
        path.write_bytes(b"rot")
    for words in (["slots", "station.toml"], ["deploy", "station.toml", "3.lineward"], ["rollback", "station.toml"]):
        code, _, err = lineward(*words)
        assert code == FAILED
        assert "--mend" in err
    assert lineward("slots", "station.toml", "--mend")[0] == PASSED
    code, _, err = lineward("deploy", "station.toml", "1.lineward")
    assert "version 1 is older than 2" in err
    assert lineward("deploy", "station.toml", "2.lineward")[0] == PASSED


@pytest.mark.usefixtures("here")
def test_a_permit_from_the_workstation(lineward):
    lineward("key", "new", "line-1")
    Path("keys").mkdir(mode=0o755)
    Path("line-1.pub").rename("keys/line-1.pub")
    Path("station.toml").write_text('keys = "keys"\n' + STATION)
    assert "not signed" in lineward("deploy", "station.toml", "2.lineward")[2]
    for version in (1, 2):
        lineward("sign", f"{version}.lineward", "--key", "line-1.key")
    assert lineward("deploy", "station.toml", "2.lineward")[0] == PASSED
    assert lineward("deploy", "station.toml", "1.lineward")[0] == FAILED

    permit = ["sign", "1.lineward", "--key", "line-1.key", "--permit-downgrade", "permit", "--why", "recall of 2"]
    before = Path("1.lineward").read_bytes()
    code, out, _ = lineward(*permit, "--station", "other")
    assert (code, out) == (PASSED, "permit: permits version 1 of tiny part on other\n")
    assert Path("1.lineward").read_bytes() == before
    code, _, err = lineward("deploy", "station.toml", "1.lineward", "--permit", "permit")
    assert code == FAILED
    assert "is for station 'other', this is 'desk'" in err
    assert lineward(*permit)[0] == PASSED
    code, _, err = lineward("deploy", "station.toml", "1.lineward", "--permit", "permit")
    assert (code, err) == (PASSED, "")
    assert "permitted: recall of 2" in lineward("slots", "station.toml")[1]
    assert read_bundle("slots/tiny/" + active_file(), AcceptAny()).manifest.version == 1
    assert "Object" not in lineward(*permit, "--station", "x" * 99)[2].partition("->")[2]


def active_file() -> str:
    return next(path.name for path in Path("slots/tiny").glob("1-*.lineward"))
