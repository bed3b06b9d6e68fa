"""What a bundle says about itself: `manifest.json`, as plain frozen records."""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from lineward.runtime.errors import BundleError
from lineward.runtime.preprocessing import COLOUR, DEPTH, RESIZE, Preprocessing

FORMAT = 1
"""The bundle format this runtime reads and writes."""

LONGEST_PRODUCT = 128
IMAGE_SCORE = "max"
"""The one image score there is."""

Count = Annotated[int, Meta(ge=1, le=1 << 24)]
Pixels = Annotated[int, Meta(ge=8, le=8192)]
MOST_PATCHES = 2048
"""Patches of a frame from side to side, at most."""
MOST_PIXELS = 1 << 27
"""Pixels of all tiles of a frame together, at most: more than those of a frame of 12k x 8k."""
MOST_TILES = 32
"""Tiles of a frame from side to side, at most."""
Patches = Annotated[int, Meta(ge=1, le=MOST_PATCHES)]
Rate = Annotated[float, Meta(gt=0, lt=1)]
Share = Annotated[float, Meta(ge=0, le=1)]
Sha256 = Annotated[str, Meta(pattern="^[0-9a-f]{64}$")]


class Record(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A record of the manifest: frozen, and strict about what it is read from."""


class Member(Record, frozen=True):
    """One file of the bundle."""

    sha256: Sha256
    size: Annotated[int, Meta(ge=0, le=1 << 31)]


class Split(Record, frozen=True):
    """What the embeddings of a square block of patches share, since coarser feature levels are repeated over it.

    Attributes:
        own: leading coordinates of an embedding that are the patch's own. The others are, but for one factor a patch,
            those of its block; the last comes from a constant greater than 0.
        block: patches from side to side of a block.
    """

    own: Count
    block: Annotated[int, Meta(ge=2, le=64)]


class Grid(Record, frozen=True, omit_defaults=True):
    """The patches of one input of the graph.

    Attributes:
        rows: patches from top to bottom.
        columns: patches from left to right.
        dimensions: length of a patch embedding.
        split: what neighbouring patches share; None where they share nothing.
    """

    rows: Patches
    columns: Patches
    dimensions: Count
    split: Split | None = None


class MinimumArea(Record, frozen=True):
    """A second reason to reject: a connected area of the map that is large, if faint.

    Attributes:
        pixels: of the map; a blob of so many or more rejects the part.
        level: that the blob lies above, as a share of the threshold.
    """

    pixels: Count
    level: Rate


class Tiles(Record, frozen=True):
    """How a frame is cut into inputs of the graph, which overlap (docs/region-and-tiles.md).

    Attributes:
        rows: tiles from top to bottom.
        columns: tiles from left to right.
        overlap_rows: patches that a tile shares with the one above it, at most half of its own.
        overlap_columns: patches that it shares with the one left of it, at most half of its own.
    """

    rows: Annotated[int, Meta(ge=1, le=MOST_TILES)]
    columns: Annotated[int, Meta(ge=1, le=MOST_TILES)]
    overlap_rows: Annotated[int, Meta(ge=0)]
    overlap_columns: Annotated[int, Meta(ge=0)]

    def patches(self, rows: int, columns: int) -> tuple[int, int]:
        """Rows and columns of patches of a frame, of those of a tile."""
        down = self.rows * (rows - self.overlap_rows) + self.overlap_rows
        return down, self.columns * (columns - self.overlap_columns) + self.overlap_columns

    def fit(self, rows: int, columns: int, pixels: int) -> bool:
        """Whether tiles of so many patches and pixels overlap by half or less, and are not too much for a device."""
        overlap = 2 * self.overlap_rows <= rows and 2 * self.overlap_columns <= columns
        small = max(self.patches(rows, columns)) <= MOST_PATCHES
        return overlap and small and self.rows * self.columns * pixels <= MOST_PIXELS


class Score(Record, frozen=True, omit_defaults=True):
    """How patch scores become an anomaly map and an image score.

    Attributes:
        map_height: rows of the anomaly map.
        map_width: columns of the anomaly map.
        sigma: standard deviation of the Gaussian that smooths the map, in map pixels.
        image_score: how the map becomes one number: "max".
        area: what else raises that number; None: nothing.
    """

    map_height: Pixels
    map_width: Pixels
    sigma: Annotated[float, Meta(gt=0, le=64)]
    image_score: str = IMAGE_SCORE
    area: MinimumArea | None = None


class Bound(Record, frozen=True):
    """A share that is not exceeded, with a confidence.

    Attributes:
        rate: the share.
        confidence: the chance, over all that could have been drawn instead, that the statement is true.
    """

    rate: Share
    confidence: Rate


class Extrapolation(Record, frozen=True):
    """A threshold from beyond the sample: a generalised Pareto tail, fitted to the highest scores and followed further.

    Attributes:
        exceedances: scores that the tail was fitted to.
        shape: of the tail; below 0 it ends, above 0 it is heavier than exponential.
        scale: of the tail, in score.
        p_value: goodness of fit, the chance of a worse fit (Anderson-Darling) if the tail were right.
        estimate: the tail's own threshold.
        confidence: with which, if the tail is right, the threshold used is at or above the true one.
    """

    exceedances: Count
    shape: float
    scale: Annotated[float, Meta(gt=0)]
    p_value: Share
    estimate: float
    confidence: Rate


class Escapes(Record, frozen=True):
    """Labelled defective parts that passed a threshold, and the exact (Clopper-Pearson) interval of their share.

    Attributes:
        defects: defective parts that were judged.
        escaped: those that passed.
        lower: lower end of the interval of the escape rate.
        upper: its upper end.
        confidence: of the interval.
        data_sha256: fingerprint of the defective images.
    """

    defects: Count
    escaped: Annotated[int, Meta(ge=0)]
    lower: Share
    upper: Share
    confidence: Rate
    data_sha256: Sha256


class Threshold(Record, frozen=True, omit_defaults=True):
    """The image score above which a part is rejected, and the promise behind it.

    Attributes:
        value: the image score that still passes.
        false_reject_rate: the promised share of good parts rejected, at most.
        method: how the value was found: "split-conformal", "cross-conformal" or "tail".
        sample_size: held-out good images behind it.
        seed: seed of the split.
        confidence: with which the promise is kept; None for on average over calibrations.
        bound: what can be said with confidence; None where nothing can.
        folds: banks of a cross-conformal calibration; None for other methods.
        extrapolation: the tail, where the value lies beyond what the sample supports.
        data_sha256: fingerprint of the held-out images.
        escapes: how labelled defects fared, where some were at hand.
    """

    value: Annotated[float, Meta(ge=0, le=2)]
    false_reject_rate: Rate
    method: str
    sample_size: Count
    seed: int
    confidence: Rate | None = None
    bound: Bound | None = None
    folds: Count | None = None
    extrapolation: Extrapolation | None = None
    data_sha256: Sha256 | None = None
    escapes: Escapes | None = None


ReferenceValues = Annotated[tuple[float, ...], Meta(max_length=4096)]


class DriftReference(Record, frozen=True):
    """Statistics of good images, each sorted, that a station's frames are compared with (docs/drift.md).

    Attributes:
        score: image scores, of images that did not build the bank.
        distance: medians of their anomaly maps.
        brightness: mean grey levels, of any good images.
        contrast: standard deviations of their grey levels.
        colour: means of red less means of blue.
        sharpness: log2(1 + variance of the Laplacian).
    """

    score: ReferenceValues
    distance: ReferenceValues
    brightness: ReferenceValues
    contrast: ReferenceValues
    colour: ReferenceValues
    sharpness: ReferenceValues


class Addition(Record, frozen=True):
    """Good images that were added to a finished bundle.

    Attributes:
        bundle_sha256: names the bundle they were added to.
        created: UTC time, ISO 8601.
        images: good images whose patches could enter the bank.
        rows: rows of the bank that they added.
        data_sha256: fingerprint of all images given, bank and held-out.
        seed: seed of the split.
    """

    bundle_sha256: Sha256
    created: str
    images: Count
    rows: Annotated[int, Meta(ge=0, le=1 << 24)]
    data_sha256: Sha256
    seed: int


class Origin(Record, frozen=True, omit_defaults=True):
    """Where a bundle came from.

    Attributes:
        backbone: name of the backbone.
        weights_sha256: SHA-256 of the file its weights were read from.
        levels: strides of the feature levels, in input pixels.
        shrinkage: whitening shrinkage, in mean eigenvalues.
        tau: the lift, in median norms of whitened patches.
        position: weight of a patch's place in the image, in the same.
        bank_method: how the bank was chosen.
        images: good images that built the bank.
        data_sha256: fingerprint of all good images, bank and held-out.
        seed: seed of every random choice.
        tools: versions of what made it.
        additions: good images added later, by `lineward adapt`; they are counted in `images`, not in `data_sha256`.
    """

    backbone: str
    weights_sha256: str
    levels: tuple[int, ...]
    shrinkage: float
    tau: float
    position: float
    bank_method: str
    images: Count
    data_sha256: str
    seed: int
    tools: dict[str, str]
    additions: tuple[Addition, ...] = ()


class Conversion(Record, frozen=True):
    """What bringing the embedding graph to a lower precision cost: a float32 bundle of the same recipe beside this one.

    Attributes:
        precision: of the graph: "float16" or "int8".
        float32_layers: layers of the backbone that stay float32 though they could be converted.
        evidence: "labelled defects", or "planted defects" where there were none.
        good: good images scored by both, which built neither bank.
        defects: defective images scored by both.
        float32_auroc: image AUROC of the float32 bundle on them.
        auroc: image AUROC of this one.
        max_drop: the most that it could be lower.
        float32_threshold: the score that the promised share of the good images lies above, in float32.
        threshold: the same with this graph.
    """

    precision: str
    float32_layers: tuple[str, ...]
    evidence: str
    good: Count
    defects: Count
    float32_auroc: Share
    auroc: Share
    max_drop: Share
    float32_threshold: float
    threshold: float


class Golden(Record, frozen=True):
    """An image with the result that every engine must reproduce.

    Attributes:
        image: member that holds it, a PNG.
        scores: member that holds its patch scores, float32 [rows, columns] under the key "scores", of all tiles.
        preprocessed_sha256: SHA-256 of its preprocessed pixels, which must match to the bit.
        image_score: its image score.
    """

    image: str
    scores: str
    preprocessed_sha256: Sha256
    image_score: float


class Manifest(Record, frozen=True, omit_defaults=True):
    """The whole of `manifest.json`; a field that an older bundle lacks is left out where it has none.

    Attributes:
        format: version of the bundle format.
        product: what is inspected.
        version: grows with every release of the product's bundle.
        created: UTC time, ISO 8601.
        members: every other file of the bundle, by name.
        preprocessing: from frame to graph input.
        grid: patches of an input of the graph: of the image, or of one of its tiles.
        rows: rows of the bank.
        score: from patch scores to image score.
        threshold: the image threshold and its promise.
        origin: where it came from.
        golden: images with known results.
        golden_tolerance: greatest difference allowed between patch scores and golden ones.
        drift: what frames are compared with; None in bundles from before there was drift detection.
        conversion: what a lower precision of the embedding graph cost; None in float32.
        tiles: how a frame is cut; None: it is one input.
    """

    format: int
    product: Annotated[str, Meta(min_length=1, max_length=LONGEST_PRODUCT)]
    version: Annotated[int, Meta(ge=1)]
    created: str
    members: dict[str, Member]
    preprocessing: Preprocessing
    grid: Grid
    rows: Count
    score: Score
    threshold: Threshold
    origin: Origin
    golden: tuple[Golden, ...]
    golden_tolerance: Annotated[float, Meta(gt=0, le=0.1)]
    drift: DriftReference | None = None
    conversion: Conversion | None = None
    tiles: Tiles | None = None


def check_identity(product: str, version: int) -> None:
    """Check a product's name and version before there is a manifest to put them in.

    Raises:
        BundleError: the name is empty or too long, or the version is below 1.
    """
    if not 1 <= len(product) <= LONGEST_PRODUCT:
        raise BundleError(f"{product!r}: not a product's name", do=f"choose 1 to {LONGEST_PRODUCT} characters")
    if not 1 <= version < 1 << 63:
        raise BundleError(f"bundle version {version} is out of range", do="choose 1 or more")


def encode_manifest(manifest: Manifest) -> bytes:
    """Encode as JSON: indented for people, in one fixed order for signatures."""
    return msgspec.json.format(msgspec.json.encode(manifest, order="deterministic"), indent=2) + b"\n"


def decode_manifest(data: bytes, where: str) -> Manifest:
    """Decode and check `manifest.json`; `where` names the bundle in errors.

    Raises:
        BundleError: it is not JSON, of another format, lacks a field, has one too many, or a value out of range.
    """
    rebuild = "take the bundle again from where it was made"
    try:
        head = msgspec.json.decode(data)
        if not isinstance(head, dict) or not isinstance(head.get("format"), int):
            raise BundleError(f"{where}: manifest.json names no format", do=rebuild)
        if head["format"] != FORMAT:
            raise BundleError(
                f"{where}: bundle format {head['format']} is not known here (this runtime reads {FORMAT})",
                do="update lineward on this device, or build the bundle with this version",
            )
        manifest = msgspec.json.decode(data, type=Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise BundleError(f"{where}: manifest.json is not valid: {error}", do=rebuild) from error
    _check_known(manifest, where)
    return manifest


def _check_known(manifest: Manifest, where: str) -> None:
    preprocessing = manifest.preprocessing
    known = {
        "preprocessing resize": (preprocessing.resize, RESIZE),
        "preprocessing depth": (preprocessing.depth, DEPTH),
        "preprocessing colour": (preprocessing.colour, COLOUR),
        "image score": (manifest.score.image_score, IMAGE_SCORE),
    }
    for field, (found, value) in known.items():
        if found != value:
            raise BundleError(
                f"{where}: {field} {found!r} is not known here (only {value!r})",
                do="update lineward on this device",
            )
    if not (8 <= preprocessing.width <= 8192 and 8 <= preprocessing.height <= 8192):
        raise BundleError(
            f"{where}: input of {preprocessing.width}x{preprocessing.height} pixels is out of range (8 to 8192)",
            do="take the bundle again from where it was made",
        )
    grid, tiles = manifest.grid, manifest.tiles
    if tiles is not None and not tiles.fit(grid.rows, grid.columns, preprocessing.height * preprocessing.width):
        raise BundleError(
            f"{where}: {tiles.rows}x{tiles.columns} tiles of {grid.rows}x{grid.columns} patches overlap by more than "
            f"half, or make more than {MOST_PATCHES} patches a side or {MOST_PIXELS} pixels",
            do="take the bundle again from where it was made",
        )
