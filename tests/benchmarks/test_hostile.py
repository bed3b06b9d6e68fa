"""A share of the hostile bundles on every run; `python -m benchmarks.hostile` gives all of them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.hostile.attacks import ATTACKS, Expected, make_bundle
from benchmarks.hostile.campaign import ALLOWED_MEMORY, DeviceProcess, find, prepare, run
from benchmarks.hostile.material import make_material

EACH = 4


def test_a_share_of_every_kind(tmp_path):
    found = dict(run(tmp_path, range(EACH)))
    assert found.keys() == ATTACKS.keys()
    assert {kind: tally.findings for kind, tally in found.items() if tally.findings} == {}
    for kind, tally in found.items():
        accepted = {outcome for outcome in tally.outcomes if outcome.startswith("accepted")}
        assert tally.outcomes.total() == EACH
        assert not accepted or ATTACKS[kind].expected is not Expected.REFUSED


@pytest.mark.parametrize("kind", ATTACKS)
def test_the_same_number_gives_the_same_bundle(kind):
    material = make_material(Path("/folder"))
    made = [make_bundle(kind, number, material) for number in range(6)]
    assert made == [make_bundle(kind, number, material) for number in range(6)]
    assert len(set(made)) > 2
    assert material.data not in made


REFUSED = {"outcome": "refused", "what": "w", "do": "d", "says": True, "exit": 2, "traceback": False}
ACCEPTED = {"outcome": "accepted", "same": False, "closed": True}


@pytest.mark.parametrize(
    ("expected", "answer", "memory", "finding"),
    [
        (Expected.REFUSED, REFUSED, 0, None),
        (Expected.REFUSED, {**ACCEPTED, "same": True}, 0, "accepted"),
        (Expected.REFUSED_OR_SAME, {**ACCEPTED, "same": True}, 0, None),
        (Expected.REFUSED_OR_SAME, ACCEPTED, 0, "accepted"),
        (Expected.REFUSED_OR_CLOSED, ACCEPTED, 0, None),
        (Expected.REFUSED_OR_CLOSED, {**ACCEPTED, "closed": False}, 0, "the verdict does not fail closed"),
        (Expected.REFUSED, {"outcome": "died -11"}, 0, "died -11 : "),
        (Expected.REFUSED, {"outcome": "uncaught", "error": "E", "what": "w"}, 0, "uncaught E: w"),
        (Expected.REFUSED, {**REFUSED, "exit": 1}, 0, "lineward verify ended with 1"),
        (Expected.REFUSED, {**REFUSED, "traceback": True}, 0, "lineward verify showed a traceback"),
        (Expected.REFUSED, {**REFUSED, "do": ""}, 0, "an error that does not say what to do"),
        (Expected.REFUSED, {**REFUSED, "heard": ["open"]}, 0, "outside its bundle: open"),
        (Expected.REFUSED, {**REFUSED, "new": ["/x"]}, 0, "outside its bundle: /x"),
        (Expected.REFUSED, REFUSED, ALLOWED_MEMORY + (1 << 20), "257 MiB of memory"),
    ],
)
def test_what_counts_as_found(expected, answer, memory, finding):
    answer = {"heard": [], "new": [], **answer}
    assert list(find(expected, answer, memory)) == ([] if finding is None else [finding])


def test_a_device_that_dies_is_told_and_replaced(tmp_path):
    material = prepare(tmp_path)
    device = DeviceProcess(tmp_path, "device", material)
    try:
        process = device.start()
        process.kill()
        process.wait()
        answer, _ = device.take(material.data)
        assert (answer["outcome"], answer["same"]) == ("accepted", True)
        assert device.process is not process
    finally:
        device.close()


def test_a_device_hears_of_what_is_written_and_cannot_write(tmp_path):
    """The watch and the limits themselves, in a process of their own."""
    program = (
        "import pathlib, sys; from benchmarks.hostile.device import Watch, _limit; watch = Watch(); _limit(1 << 28)\n"
        "path = pathlib.Path(sys.argv[1]); path.touch(); path.with_name('folder').mkdir()\n"
        "try: path.write_bytes(b'x')\nexcept OSError as error: print(error.strerror)\n"
        "try: bytearray(1 << 29)\nexcept MemoryError: print('no memory')\n"
        "print(sorted({h.split()[0] for h in watch.heard if str(path.parent) in h} & {'open', 'os.mkdir'}))"
    )
    words = [sys.executable, "-c", program, str(tmp_path / "file")]
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["File too large", "no memory", "['open', 'os.mkdir']"]
