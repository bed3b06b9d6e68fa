"""The plan cache: what it gives back is what was built for that key, whatever happened to its files."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.errors import EngineError
from lineward.runtime.tensorrt.plan_cache import PlanCache, PlanKey, default_directory, graph_hash

KEY = PlanKey(graph_hash(b"graph"), "float16", "10.3.0", "8.7", "max_batch=8")
PLAN = b"serialised plan \x00\xff\n" * 9
FIELDS = sorted(asdict(KEY))


@pytest.fixture
def cache(tmp_path: Path) -> PlanCache:
    return PlanCache(tmp_path / "plans")


def never() -> bytes:
    raise AssertionError("built, although a sound plan was stored")


def the_file(cache: PlanCache) -> Path:
    (entry,) = cache.entries()
    return entry.path


def test_a_plan_is_built_once(cache: PlanCache) -> None:
    assert cache.load(KEY) is None
    assert cache.plan(KEY, lambda: PLAN) == PLAN
    assert cache.plan(KEY, never) == PLAN


@pytest.mark.parametrize("field", FIELDS)
def test_a_plan_is_stale_when_any_part_of_its_key_changes(cache: PlanCache, field: str) -> None:
    cache.plan(KEY, lambda: PLAN)
    other = replace(KEY, **{field: "another"})
    assert cache.load(other) is None
    assert cache.plan(other, lambda: b"other") == b"other"
    assert cache.plan(KEY, never) == PLAN


def test_a_plan_under_another_key_s_name_is_not_trusted(cache: PlanCache) -> None:
    cache.plan(KEY, lambda: PLAN)
    other = replace(KEY, capability="9.0")
    the_file(cache).rename(cache.directory / f"{other.name}.plan")
    assert cache.load(other) is None
    assert cache.entries()[0].key is None
    assert cache.plan(other, lambda: b"other") == b"other"


@settings(deadline=None, max_examples=200)
@given(data=st.data(), plan=st.binary(max_size=300))
def test_a_damaged_file_gives_the_plan_or_nothing(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, plan: bytes
) -> None:
    cache = PlanCache(tmp_path_factory.mktemp("plans"))
    cache.plan(KEY, lambda: plan)
    path = the_file(cache)
    sound = path.read_bytes()
    at = data.draw(st.integers(0, len(sound)))
    upto = data.draw(st.integers(at, len(sound)))
    path.write_bytes(sound[:at] + data.draw(st.binary(max_size=8)) + sound[upto:])
    assert cache.load(KEY) in (None, plan)
    assert cache.plan(KEY, lambda: plan) == plan
    assert cache.plan(KEY, never) == plan


@pytest.mark.parametrize("content", [b"", b"\n", b"lineward plan 1\n", b"lineward plan 1\n[]\n", b"[" * 60_000])
def test_a_file_that_is_no_plan_is_built_again(cache: PlanCache, content: bytes) -> None:
    cache.plan(KEY, lambda: PLAN)
    the_file(cache).write_bytes(content)
    assert cache.load(KEY) is None
    assert cache.entries()[0].key is None
    assert cache.plan(KEY, lambda: PLAN) == PLAN
    assert cache.load(KEY) == PLAN


def test_deeply_nested_json_is_no_plan(cache: PlanCache) -> None:
    cache.plan(KEY, lambda: PLAN)
    the_file(cache).write_bytes(b"lineward plan 1\n" + b"[" * 60_000 + b"\n")
    assert cache.load(KEY) is None


def test_every_bit_of_a_stored_plan_counts(cache: PlanCache) -> None:
    cache.plan(KEY, lambda: PLAN)
    path = the_file(cache)
    sound = path.read_bytes()
    for index in range(len(sound) - len(PLAN), len(sound)):
        path.write_bytes(sound[:index] + bytes([sound[index] ^ 1]) + sound[index + 1 :])
        assert cache.load(KEY) is None


def test_a_build_that_fails_leaves_nothing(cache: PlanCache) -> None:
    def fail() -> bytes:
        raise EngineError("no", do="nothing")

    with pytest.raises(EngineError, match="no"):
        cache.plan(KEY, fail)
    assert cache.entries() == []
    assert cache.plan(KEY, lambda: PLAN) == PLAN


def test_a_write_that_is_cut_short_is_not_seen(cache: PlanCache, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(EngineError, match="No space left on device"):
            cache.plan(KEY, lambda: PLAN)
    assert cache.load(KEY) is None
    assert cache.entries() == []
    assert cache.plan(KEY, lambda: PLAN) == PLAN


def test_a_directory_that_cannot_be_made_is_an_error_before_the_build(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(EngineError, match="cannot be written"):
        PlanCache(tmp_path / "file" / "plans").plan(KEY, never)


def test_a_renewed_plan_replaces_the_stored_one_only_when_it_is_built(cache: PlanCache) -> None:
    def fail() -> bytes:
        raise EngineError("no", do="nothing")

    cache.plan(KEY, lambda: PLAN)
    with pytest.raises(EngineError, match="no"):
        cache.renew(KEY, fail)
    assert cache.load(KEY) == PLAN
    assert cache.renew(KEY, lambda: b"new") == b"new"
    assert cache.load(KEY) == b"new"


def test_a_reader_keeps_the_whole_plan_that_it_opened(cache: PlanCache) -> None:
    cache.plan(KEY, lambda: PLAN)
    whole = the_file(cache).read_bytes()
    with the_file(cache).open("rb", buffering=0) as reader:
        start = reader.read(20)
        cache.renew(KEY, lambda: b"new")
        assert start + reader.read() == whole


def test_entries_and_prune(cache: PlanCache) -> None:
    old, new = replace(KEY, tensorrt="10.2.0"), KEY
    for key in (old, new):
        cache.plan(key, lambda: PLAN)
    (cache.directory / "damaged.plan").write_bytes(b"?")
    (cache.directory / "left.partial").write_bytes(b"?")
    assert {entry.key for entry in cache.entries()} == {old, new, None}
    pruned = cache.prune(keep=lambda key: key.tensorrt == "10.3.0")
    assert {entry.key for entry in pruned} == {old, None}
    assert [entry.key for entry in cache.entries()] == [new]
    assert {path.name for path in cache.directory.iterdir()} == {f"{KEY.name}.plan", "lock"}
    assert cache.plan(KEY, never) == PLAN


def test_pruning_where_there_is_no_cache(cache: PlanCache) -> None:
    assert cache.prune(keep=lambda _: True) == []
    assert not cache.directory.exists()


def test_only_the_owner_may_read_the_directory(cache: PlanCache) -> None:
    cache.plan(KEY, lambda: PLAN)
    assert cache.directory.stat().st_mode & 0o777 == 0o700


RACER = """
import os, sys, time
from pathlib import Path
from lineward.runtime.tensorrt.plan_cache import PlanCache, PlanKey
folder, letter, ending = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
def build():
    with (folder / "builds").open("a") as builds:
        builds.write(letter)
    time.sleep(0.3)
    if ending == "dies":
        os._exit(9)
    return letter.encode() * 5000
(folder / f"ready-{letter}").touch()
while not (folder / "go").exists():
    time.sleep(0.01)
plan = PlanCache(folder / "plans").plan(PlanKey("g", "float32", "11.4.0", "11.0", ""), build)
(folder / f"found-{letter}").write_bytes(plan)
"""


def start(folder: Path, letter: str, ending: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-c", RACER, str(folder), letter, ending])


def release(folder: Path, letters: str) -> None:
    deadline = time.monotonic() + 60
    while not all((folder / f"ready-{letter}").exists() for letter in letters):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (folder / "go").touch()


def test_processes_that_want_the_same_plan_build_it_once(tmp_path: Path) -> None:
    processes = [start(tmp_path, letter, "returns") for letter in "abcd"]
    release(tmp_path, "abcd")
    assert [process.wait(60) for process in processes] == [0] * 4
    built = (tmp_path / "builds").read_bytes()
    assert len(built) == 1
    assert [(tmp_path / f"found-{letter}").read_bytes() for letter in "abcd"] == [built * 5000] * 4


def test_a_builder_that_dies_leaves_the_turn_to_the_next(tmp_path: Path) -> None:
    dying = start(tmp_path, "a", "dies")
    release(tmp_path, "a")
    while not (tmp_path / "builds").exists():
        time.sleep(0.01)
    waiting = start(tmp_path, "b", "returns")
    assert (dying.wait(60), waiting.wait(60)) == (9, 0)
    assert (tmp_path / "found-b").read_bytes() == b"b" * 5000


def test_threads_that_want_the_same_plan_build_it_once(cache: PlanCache) -> None:
    built: list[bytes] = []
    barrier = threading.Barrier(4)

    def build(plan: bytes) -> bytes:
        built.append(plan)
        time.sleep(0.1)
        return plan

    def race(plan: bytes) -> bytes:
        barrier.wait(60)
        return cache.plan(KEY, lambda: build(plan))

    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(race, (b"a", b"b", b"c", b"d")))
    assert len(built) == 1
    assert found == set(built)


@pytest.mark.parametrize(("variable", "base"), [("/var/cache", Path("/var/cache")), ("", None), ("relative", None)])
def test_the_default_directory_follows_xdg(monkeypatch: pytest.MonkeyPatch, variable: str, base: Path | None) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", variable)
    monkeypatch.setenv("HOME", "/home/someone")
    assert default_directory() == (base or Path("/home/someone/.cache")) / "lineward" / "plans"
    assert PlanCache().directory == default_directory()
