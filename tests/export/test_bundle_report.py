from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import pytest

from lineward.export.bundle_report import Making, in_words, write_bundle_report
from lineward.export.good_parts import GoodPart, GoodParts, score_parts
from lineward.runtime.bundle import decode_bundle
from lineward.runtime.errors import BundleError, DataError, ImageError
from lineward.runtime.images import read_image, write_png
from lineward.runtime.inspection import Verdict
from lineward.runtime.inspector import Inspector
from lineward.runtime.manifest import Addition, Bound, DriftReference, Extrapolation, Threshold
from tests.html_page import Page

MAKING = Making("2026-01-02T03:04:05Z", "press-4 (Linux, x86_64)", "1.2.3", "cpu")
PROMISE = [("promise", "at most 5 %"), ("", "with 95 % confidence 14.6 %"), ("threshold", "0.25")]
SIGNATURES = [("signature", "good: by line-1, signed 2026-01-01"), ("signature", "does not count: by line-2: expired")]
HOSTILE = "<img src=x onerror=alert(1)>&\"'{{ 7 * 7 }}\u202e"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def report(folder: Path, inspector: Inspector, good: GoodParts | None = None) -> Page:
    path = folder / "report.html"
    write_bundle_report(path, inspector, MAKING, promise=PROMISE, signatures=SIGNATURES, good=good)
    return Page(path.read_text("utf-8"))


@pytest.fixture(scope="module")
def inspector(tiny) -> Inspector:
    return Inspector(tiny)


@pytest.fixture
def good(tmp_path, golden_frames) -> list[Path]:
    """Six good parts: the good golden image, ever brighter."""
    paths = [tmp_path / "good" / f"{number}.png" for number in range(6)]
    paths[0].parent.mkdir()
    for number, path in enumerate(paths):
        write_png(path, np.clip(golden_frames[0].astype(int) + 3 * number, 0, 255).astype(np.uint8))
    return paths


@pytest.fixture
def page(inspector, good, tmp_path) -> Page:
    return report(tmp_path, inspector, score_parts(inspector, good))


def test_shows_the_promise_where_it_came_from_and_who_signed(page, tiny):
    manifest, origin = tiny.manifest, tiny.manifest.origin
    for shown in (
        f"{manifest.product} bundle version {manifest.version}",
        f"A part is rejected when its score is above {manifest.threshold.value:.4f}. {in_words(manifest.threshold)}",
        "promise at most 5 %; with 95 % confidence 14.6 % threshold 0.25",
        f"{origin.images} built the memory bank; seed {origin.seed}",
        f"Fingerprint of all images {origin.data_sha256}",
        f"{manifest.rows} rows of {manifest.grid.dimensions} dimensions, chosen by {origin.bank_method}",
        f"numpy {origin.tools['numpy']}",
        "signature good: by line-1, signed 2026-01-01 signature does not count: by line-2: expired",
        f"Bundle {tiny.sha256}",
        "Release For the bundle " + tiny.sha256,
        "Report made 2026-01-02T03:04:05Z on press-4 (Linux, x86_64) by lineward 1.2.3",
        "Prepared by Checked by Released by",
    ):
        assert shown in page.text
    for name, member in manifest.members.items():
        assert f"{name} {member.sha256} , {member.size} bytes" in page.text


def test_golden_images_are_inspected_now(rebundle, tiny, tmp_path):
    good, defect = tiny.manifest.golden
    threshold = msgspec.structs.replace(tiny.manifest.threshold, value=(good.image_score + defect.image_score) / 2)
    page = report(tmp_path, Inspector(decode_bundle(rebundle(threshold=threshold), "stricter")))
    for golden, verdict in ((good, "pass"), (defect, "reject")):
        assert (
            f"{golden.image} {verdict} , score {golden.image_score:.4f}, threshold {threshold.value:.4f}" in page.text
        )
    heat = page.pictures("Anomaly map of golden/defect.png")[0].astype(int)
    photo = page.pictures("Photo of golden/defect.png")[0].astype(int)
    assert (np.abs(heat - photo).max(2) > 40).any()


def test_drift_references_are_shown(rebundle, tmp_path):
    drift = DriftReference((0.01, 0.03), (0.01,), (90.0, 100.0, 125.0), (), (-1.5, 2.5), (4.0, 6.0))
    page = report(tmp_path, Inspector(decode_bundle(rebundle(drift=drift), "drift")))
    for row in ("score 2 0.01 0.02 0.03", "brightness 3 90 105 125", "colour 2 -1.5 0.5 2.5", "sharpness 2 4 5 6"):
        assert row in page.text
    assert "contrast" not in page.text


def test_good_parts_are_counted_drawn_and_the_worst_shown(inspector, good, page):
    scores = {path.name: inspector.inspect(frame).score for path, frame in zip(good, _frames(good), strict=True)}
    rejected = sum(score > inspector.threshold.value for score in scores.values())
    assert f"{6 - rejected} of 6 good parts passed, {rejected or 'none'} rejected" in page.text
    assert sum(int(bar["height"]) for bar in page.all("rect")) == 6
    worst = re.findall(r"Photo of (\d\.png)", " ".join(img["alt"] for img in page.all("img")))
    assert worst == sorted(scores, key=scores.__getitem__, reverse=True)
    assert "the word of whoever made this report" in page.text


def _frames(paths):
    return [read_image(path) for path in paths]


def test_says_what_is_not_shown_without_good_parts(inspector, tmp_path):
    page = report(tmp_path, inspector)
    assert "Not shown: no images of good parts were given" in page.text
    assert page.all("svg") == []
    assert "The worst good parts" not in page.text


def test_copies_count_once(inspector, good, tmp_path):
    twin = good[0].with_name("twin.png")
    shutil.copy(good[0], twin)
    scored = score_parts(inspector, [*good, twin])
    assert (len(scored.parts), scored.copies) == (6, 1)
    assert scored.data_sha256 == score_parts(inspector, good[::-1]).data_sha256
    assert "1 images show the same pixels as others" in report(tmp_path, inspector, scored).text


@dataclass(frozen=True)
class Known:
    field: str
    said: str


@pytest.mark.parametrize(
    "known",
    [
        Known("origin", "the very images that the bundle was trained on"),
        Known("threshold", "the very images that the threshold was found with"),
    ],
    ids=lambda known: known.field,
)
def test_images_that_the_bundle_knows_are_recognised(known, rebundle, tiny, good, inspector, tmp_path):
    scored = score_parts(inspector, good)
    record = msgspec.structs.replace(getattr(tiny.manifest, known.field), data_sha256=scored.data_sha256)
    bundle = decode_bundle(rebundle(**{known.field: record}), "known")
    assert known.said in report(tmp_path, Inspector(bundle), scored).text


@pytest.mark.parametrize(("rejected", "said"), [(0, False), (8, False), (40, True)])
def test_a_broken_promise_is_said(rejected, said, rebundle, tiny, good, tmp_path):
    threshold = msgspec.structs.replace(tiny.manifest.threshold, false_reject_rate=0.1, bound=Bound(0.2, 0.95))
    bundle = decode_bundle(rebundle(threshold=threshold), "promise")
    parts = [
        GoodPart(good[0], 0.9 if n < rejected else 0.0, Verdict.REJECT if n < rejected else Verdict.PASS)
        for n in range(100)
    ]
    page = report(tmp_path, Inspector(bundle), GoodParts(tuple(parts), 0, "e" * 64))
    assert ("More good parts were rejected than the promise allows" in page.text) == said
    assert f"{100 - rejected} of 100 good parts passed, {rejected or 'none'} rejected" in page.text


def test_a_part_without_a_score_is_rejected_and_comes_first(inspector, good, tmp_path):
    parts = (GoodPart(good[1], 0.01, Verdict.PASS), GoodPart(good[0], float("nan"), Verdict.REJECT))
    page = report(tmp_path, inspector, GoodParts(parts, 0, "e" * 64))
    assert "1 of 2 good parts passed, 1 rejected" in page.text
    assert "Not drawn: 1 without a score" in page.text
    assert page.text.index("0.png pass") < page.text.index("1.png pass")  # as the real inspector sees them


def test_additions_are_named(rebundle, tiny, tmp_path):
    added = Addition("a" * 64, "2026-02-03T04:05:06Z", 7, 33, "b" * 64, 0)
    bundle = decode_bundle(
        rebundle(origin=msgspec.structs.replace(tiny.manifest.origin, additions=(added,))), "adapted"
    )
    assert "Added later 7 images, 33 rows, 2026-02-03T04:05:06Z" in report(tmp_path, Inspector(bundle)).text


def test_a_bundle_without_a_drift_reference_says_so(rebundle, tmp_path):
    bundle = decode_bundle(rebundle(drift=None), "old")
    assert "sees no drift" in report(tmp_path, Inspector(bundle)).text


def test_a_bundle_that_gives_other_results_here_gets_no_report(rebundle, tiny, tmp_path):
    golden = msgspec.structs.replace(tiny.manifest.golden[0], preprocessed_sha256="0" * 64)
    bundle = decode_bundle(rebundle(golden=(golden, tiny.manifest.golden[1])), "other")
    with pytest.raises(BundleError, match="other pixels"):
        report(tmp_path, Inspector(bundle))
    assert not (tmp_path / "report.html").exists()


@pytest.mark.parametrize("paths", [[], ["missing.png"]], ids=["none", "missing"])
def test_refuses_good_parts_that_are_not_there(paths, inspector, tmp_path):
    with pytest.raises((DataError, ImageError)):
        score_parts(inspector, [tmp_path / path for path in paths])


def test_refuses_a_place_it_cannot_write_to(inspector, tmp_path):
    with pytest.raises(DataError, match="report cannot be written"):
        report(tmp_path / "missing", inspector)


def test_hostile_names_are_only_text(rebundle, good, tmp_path):
    named = good[0].with_name("<script>alert(1)</script>\u202e.png".replace("/", "\u2215"))
    good[0].rename(named)
    bundle = decode_bundle(rebundle(product=HOSTILE), "hostile")
    inspector = Inspector(bundle)
    page = report(tmp_path, inspector, score_parts(inspector, [named, *good[1:]]))
    assert page.all("script") == []
    assert {img["src"][:5] for img in page.all("img")} == {"data:"}
    assert "\u202e" not in page.text


OLD = Threshold(0.25, 0.05, "split-conformal", 23, 11)


@pytest.mark.parametrize(
    ("threshold", "words"),
    [
        (OLD, "If we calibrated again and again, at most 5 % of good parts would be rejected on average."),
        (msgspec.structs.replace(OLD, bound=Bound(0.146, 0.95)), "with 95 % confidence it rejects at most 14.6 %."),
        (msgspec.structs.replace(OLD, confidence=0.99), "We are 99 % sure that this threshold rejects at most 5 %"),
        (msgspec.structs.replace(OLD, folds=5), "About 5 % of good parts are rejected."),
        (
            msgspec.structs.replace(OLD, extrapolation=Extrapolation(20, 0.1, 0.2, 0.5, 0.2, 0.95)),
            "Our 23 images cannot show a rate as low as 5 %.",
        ),
    ],
    ids=["an old bundle", "on average", "with confidence", "in folds", "extrapolated"],
)
def test_each_promise_has_its_words(threshold, words):
    assert words in in_words(threshold)


def test_needs_nothing_from_outside(page, tmp_path):
    html = (tmp_path / "report.html").read_text("utf-8")
    assert not re.search(r"https?:|url\(|@import|<script|<iframe|<object", html, re.IGNORECASE)
    for _, attributes in page.elements:
        assert all(attributes[name].startswith("data:") for name in ("src", "href") if name in attributes)
        assert not any(name.startswith("on") for name in attributes)


@pytest.mark.skipif(CHROMIUM is None, reason="needs a browser: chromium is not installed")
def test_a_browser_renders_it_and_asks_for_nothing(page, tmp_path):  # noqa: ARG001
    other = tmp_path / "other.html"
    other.write_text('<img src="http://127.0.0.1:9/picture.png"><script>throw 1</script>')
    asked, said, shot = browse(tmp_path / "report.html")
    assert (asked, said) == (set(), [])
    assert len(shot) > 20_000
    asked, said, _ = browse(other)  # what would be found
    assert asked == {"http://127.0.0.1:9/picture.png"}
    assert len(said) == 1


def browse(path: Path) -> tuple[set[str], list[str], bytes]:
    """What a page asks the network for, what the browser's console says of it, and a picture of it."""
    assert CHROMIUM is not None
    net, shot = path.with_suffix(".json"), path.with_suffix(".png")
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command += [f"--user-data-dir={path.with_suffix('')}", f"--log-net-log={net}", "--enable-logging=stderr"]
    command += [f"--screenshot={shot}", "--window-size=1000,3000", path.as_uri()]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
    requests = [event.get("params", {}) for event in json.loads(net.read_text())["events"]]
    # The browser's own requests, for its updates and such, have no page that asked for them.
    asked = {r["url"] for r in requests if "url" in r and r.get("initiator", "not an origin") != "not an origin"}
    return asked, [line for line in ran.stderr.splitlines() if "CONSOLE" in line], shot.read_bytes()
