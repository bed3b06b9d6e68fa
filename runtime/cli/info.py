"""Say what a bundle is, what it was made from, and what it promises."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import msgspec

from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.calibration_file import read_calibration
from lineward.runtime.cli import PASSED, trusted_bundle
from lineward.runtime.cli.console import print_table
from lineward.runtime.cli.promise import describe_calibration, describe_threshold
from lineward.runtime.conformal import percent
from lineward.runtime.manifest import Conversion, Manifest, MinimumArea
from lineward.runtime.trust import AcceptAny, open_trust


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    trusted_bundle.add_arguments(parser)
    parser.add_argument("--calibration", type=Path, metavar="FILE", help="this device's own, by `lineward calibrate`")
    parser.add_argument("--json", action="store_true", help="print the manifest itself")


def run(arguments: argparse.Namespace) -> int:
    """Print the manifest's main facts, of a bundle that this machine would refuse too."""
    trust = open_trust(arguments.keys)
    bundle = read_bundle(arguments.bundle, AcceptAny())
    if arguments.json:
        print(json.dumps(msgspec.to_builtins(bundle.manifest), indent=2))
    else:
        signatures = trusted_bundle.describe_signatures(bundle, trust)
        calibration = read_calibration(arguments.calibration, bundle) if arguments.calibration else None
        own = describe_calibration(calibration, bundle.manifest) if calibration else []
        rows = [
            *describe(bundle.manifest),
            *describe_view(bundle),
            ("bundle", f"sha256 {bundle.sha256}"),
            *signatures,
            *own,
        ]
        print_table("", ("", ""), rows)
    return PASSED


def describe_view(bundle: Bundle) -> list[tuple[str, str]]:
    """What the bundle looks at, where that is not simply the whole image."""
    rows, view, tiles = [], bundle.view, bundle.manifest.tiles
    if tiles is not None:
        overlap = f"overlapping by {tiles.overlap_rows}x{tiles.overlap_columns} patches"
        cut = f"{tiles.rows}x{tiles.columns}, {overlap}: {view.rows}x{view.columns} patches of an image"
        rows.append(("tiles", cut))
    if bundle.region is not None:
        rows.append(("region", f"{view.share:.1%} of the image counts"))
    return rows


def describe(manifest: Manifest) -> list[tuple[str, str]]:
    """The main facts of a manifest in words."""
    m, p, o = manifest, manifest.preprocessing, manifest.origin
    return [
        ("product", f"{m.product}, version {m.version}, made {m.created}"),
        *describe_threshold(m.threshold),
        ("input", f"{p.width}x{p.height} {p.colour}, {p.resize}"),
        ("embedding", f"{o.backbone}, strides {', '.join(map(str, o.levels))}, {m.grid.dimensions} dimensions"),
        ("patches", f"{m.grid.rows}x{m.grid.columns}"),
        ("bank", f"{m.rows} rows by {o.bank_method} from {o.images} good images, seed {o.seed}"),
        *(
            ("added", f"{a.images} images, {a.rows} rows, {a.created}, to the bundle {a.bundle_sha256[:12]}")
            for a in o.additions
        ),
        *describe_conversion(m.conversion),
        (
            "map",
            f"{m.score.map_width}x{m.score.map_height}, sigma {m.score.sigma:g}, image score: {m.score.image_score}",
        ),
        *([("area", _area(m.score.area, m.threshold.value))] if m.score.area else []),
        ("data", f"sha256 {o.data_sha256}"),
        ("tools", ", ".join(f"{name} {version}" for name, version in o.tools.items())),
    ]


def _area(area: MinimumArea, threshold: float) -> str:
    level = f"{area.level * threshold:.4f}, {percent(area.level)} of the threshold"
    return f"rejected too: {area.pixels} connected map pixels or more above {level}; the promise covers both"


def describe_conversion(conversion: Conversion | None) -> list[tuple[str, str]]:
    """What a lower precision cost, in words; nothing in float32."""
    if conversion is None:
        return []
    c, layers = conversion, ", ".join(conversion.float32_layers)
    return [
        ("precision", c.precision + (f"; float32 where it cost most: {layers}" if layers else "")),
        (
            "cost of it",
            f"image AUROC {c.auroc:.4f}, in float32 {c.float32_auroc:.4f} (allowed drop {c.max_drop:g}), "
            f"on {c.good} good images and {c.defects} {c.evidence}; "
            f"threshold {c.threshold:.4f}, in float32 {c.float32_threshold:.4f}",
        ),
    ]
