"""Synthetic parts: photos of good parts and of planted defects, with exact masks.

Every pixel is computed with integers, so a seed gives the same bytes on every machine. Lengths are in
*units*, 1024 to the image side whatever its size in pixels, and are held as fixed point with ``_Q`` steps to
the unit. Colours run from 0 to 255 and are held in steps of 1/256; coverages run from 0 to 256.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from lineward.runtime.errors import DataError

STRUCTURAL: tuple[str, ...] = ("scratch", "stain", "chip")
LOGICAL: tuple[str, ...] = ("missing", "extra", "swapped")
DEFECTS: tuple[str, ...] = STRUCTURAL + LOGICAL

_SIZES = range(64, 1025, 8)
_SIDE = 1024  # image side, in units
_Q = 64  # fixed-point steps to the unit

_Ints = NDArray[np.int64]
_Bools = NDArray[np.bool_]
_Window = tuple[slice, slice]
_Colour = tuple[int, int, int]
_T = TypeVar("_T")
_N = TypeVar("_N", int, _Ints)


@dataclass(frozen=True)
class Part:
    """One photographed part.

    Attributes:
        image: (H, W, 3) uint8, RGB.
        mask: (H, W) bool, true where the defect is; all false for a good part.
        kind: ``"good"`` or one of ``DEFECTS``.
    """

    image: NDArray[np.uint8]
    mask: _Bools
    kind: str


def render_part(seed: int, kind: str = "good", size: int = 256) -> Part:
    """Render a part; the same seed gives the same part, light and noise whatever the defect.

    Args:
        seed: from 0 to 2**64 - 1.
        kind: ``"good"`` or one of ``DEFECTS``.
        size: image side in pixels, a multiple of 8 from 64 to 1024.

    Returns:
        The part; outside its mask the image equals that of the good part of the same seed.

    Raises:
        DataError: for a seed, kind or size that is not allowed.
    """
    _check_seed(seed, bits=64)
    _check_kind(kind, ("good", *DEFECTS))
    _check_size(size)
    frame = _frame(seed, size)
    fitted, affected = _assembly(seed, kind)
    plate = _plate(seed, frame)
    for component in fitted:
        _draw(component, frame, plate)
    mask = np.zeros((size, size), dtype=np.bool_)
    for component in affected:
        _cover(component, frame, plate, mask)
    if kind in STRUCTURAL:
        plant = {"scratch": _scratch, "stain": _stain, "chip": _chip}[kind]
        plant(_random(seed, f"defect {kind}"), frame, plate, mask)
    scene = _background(seed, frame)
    _blend(scene, plate.colour, plate.outline)
    return Part(_photograph(seed, frame, scene), mask, kind)


def write_dataset(
    root: Path,
    *,
    train: int,
    test_good: int,
    per_defect: int,
    size: int = 256,
    seed: int = 0,
    kinds: Sequence[str] = DEFECTS,
    progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write a data set of parts in the layout of MVTec AD, no part occurring twice.

    Args:
        root: folder to write to, made if need be; files of the same name are overwritten.
        train: number of good parts in ``train/good``.
        test_good: number of good parts in ``test/good``.
        per_defect: number of parts in ``test/<kind>``, and of masks (0 or 255) in ``ground_truth/<kind>``.
        size: image side in pixels, a multiple of 8 from 64 to 1024.
        seed: of the data set, from 0 to 2**32 - 1; data sets of different seeds share no part.
        kinds: defects to plant, from ``DEFECTS``.
        progress: called after each part with the numbers of parts written and to write.

    Raises:
        DataError: for an argument that is not allowed; nothing is written then.
    """
    _check_seed(seed, bits=32)
    _check_size(size)
    for kind in kinds:
        _check_kind(kind, DEFECTS)
    if len(set(kinds)) != len(kinds):
        raise DataError(f"synthetic data set: kinds repeat in {list(kinds)}", do="name each kind once")
    for name, count in {"train": train, "test_good": test_good, "per_defect": per_defect}.items():
        if count < 0:
            raise DataError(f"synthetic data set: {name} is {count}", do="give a count of 0 or more")
    jobs = [("train", "good", number) for number in range(train)]
    jobs += [("test", "good", number) for number in range(test_good)]
    jobs += [("test", kind, number) for kind in kinds for number in range(per_defect)]
    for done, (split, kind, number) in enumerate(jobs):
        part = render_part(seed << 32 | done, kind, size)
        _write_png(root / split / kind / f"{number:03d}.png", part.image[:, :, ::-1])
        if kind != "good":
            mask = part.mask.astype(np.uint8) * np.uint8(255)
            _write_png(root / "ground_truth" / kind / f"{number:03d}_mask.png", mask)
        if progress is not None:
            progress(done + 1, len(jobs))


def _write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(".png", np.ascontiguousarray(pixels))[1].tobytes())


def _check_seed(seed: int, *, bits: int) -> None:
    if not 0 <= seed < 1 << bits:
        raise DataError(f"synthetic part: seed is {seed}", do=f"give a seed from 0 to 2**{bits} - 1")


def _check_kind(kind: str, allowed: tuple[str, ...]) -> None:
    if kind not in allowed:
        raise DataError(f"synthetic part: unknown kind {kind!r}", do=f"give one of: {', '.join(allowed)}")


def _check_size(size: int) -> None:
    if size not in _SIZES:
        raise DataError(
            f"synthetic part: size is {size} pixels",
            do=f"give a multiple of {_SIZES.step} from {_SIZES[0]} to {_SIZES[-1]}",
        )


# ---- Integer mathematics -------------------------------------------------------------------------------


def _random(seed: int, subject: str) -> np.random.RandomState:
    """Random stream of one subject, so that what a defect draws leaves every other stream as it was.

    RandomState and not Generator: NumPy has frozen the former's streams.
    """
    return np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32, *subject.encode()])


def _draw_int(rng: np.random.RandomState, low: int, high: int) -> int:
    """Draw an integer from low to high, both included."""
    return int(rng.randint(low, high + 1, dtype=np.int64))


def _sin(tenths: int) -> int:
    """Sine of an angle in tenths of a degree, times 65536, rounded.

    math.sin may differ between machines in its last bits, some 1e-11 once times 65536. There are 3600 angles,
    and for none does 65536 times the sine lie within 1e-9 of a half, where rounding would turn; so all
    machines round to the same integer.
    """
    return round(65536 * math.sin(math.radians(tenths % 3600 / 10)))


def _cos(tenths: int) -> int:
    return _sin(tenths + 900)


def _rotate(x: _N, y: _N, tenths: int) -> tuple[_N, _N]:
    """Coordinates of points in axes turned by an angle (clockwise in the image, as y points down)."""
    sin, cos = _sin(tenths), _cos(tenths)
    return (x * cos + y * sin) >> 16, (y * cos - x * sin) >> 16


def _value_noise(rng: np.random.RandomState, x: _Ints, y: _Ints, cell: tuple[int, int]) -> _Ints:
    """Smooth noise from -128 to 127 over points: random values on a grid, interpolated between.

    Args:
        rng: stream of the grid's values.
        x: coordinates in steps of 1/_Q unit; any shape that broadcasts with y.
        y: likewise.
        cell: width and height of a grid cell, in units.
    """
    rows, columns = 512, 32
    grid = rng.randint(-128, 128, (rows, columns), dtype=np.int64).ravel()
    column, right = np.divmod(x * 256 // _Q, cell[0] * 256)
    row, below = np.divmod(y * 256 // _Q, cell[1] * 256)
    right, below = _ease(right // cell[0]), _ease(below // cell[1])
    here, next_column = column % columns, (column + 1) % columns
    top, bottom = row % rows * columns, (row + 1) % rows * columns
    upper = grid[top + here] * (256 - right) + grid[top + next_column] * right
    lower = grid[bottom + here] * (256 - right) + grid[bottom + next_column] * right
    noise: _Ints = (upper * (256 - below) + lower * below) >> 16
    return noise


def _ease(t: _Ints) -> _Ints:
    """Smoothstep, 3 t^2 - 2 t^3, on the range 0 to 256."""
    eased: _Ints = t * t * (768 - 2 * t) >> 16
    return eased


def _coverage(distance: _Ints, soft: int) -> _Ints:
    """Antialiased coverage of a shape, from 0 to 256, given the signed distance to its edge.

    Args:
        distance: in steps of 1/_Q unit, negative inside.
        soft: width of the edge's ramp, in the same steps.
    """
    return np.clip(128 - distance * 256 // soft, 0, 256)


def _disc_distance(squared: _Ints, radius: int) -> _Ints:
    """Signed distance to a circle given squared distances to its centre: to first order, which needs no root."""
    return squared // (2 * radius) - radius // 2


def _blend(canvas: _Ints, colour: _Ints, coverage: _Ints) -> None:
    """Blend a colour, in steps of 1/256, into a canvas (H, W, 3) in place."""
    canvas += (colour - canvas) * coverage[:, :, None] >> 8


def _rgb(colour: _Colour) -> _Ints:
    return np.array(colour, dtype=np.int64) * 256


# ---- Where things are ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Frame:
    """Coordinates of the pixel centres, in steps of 1/_Q unit from the centre.

    Attributes:
        x: (1, W) of the image.
        y: (H, 1) of the image.
        u: (H, W) of the plate, which lies turned and shifted in the image.
        v: (H, W) of the plate.
        pixel: distance between pixels.
    """

    x: _Ints
    y: _Ints
    u: _Ints
    v: _Ints
    pixel: int

    @property
    def soft(self) -> int:
        """Width of a sharp edge as the lens sees it: a pixel and a half."""
        return 3 * self.pixel // 2

    def near(self, at: tuple[int, int], reach: int) -> _Window:
        """Smallest window with all pixels whose u and v lie within reach of a point (all in units)."""
        near = (np.abs(self.u - at[0] * _Q) <= reach * _Q) & (np.abs(self.v - at[1] * _Q) <= reach * _Q)
        rows, columns = np.flatnonzero(near.any(axis=1)), np.flatnonzero(near.any(axis=0))
        return slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)


def _frame(seed: int, size: int) -> _Frame:
    rng = _random(seed, "pose")
    angle = _draw_int(rng, -30, 30)
    shift_x, shift_y = _draw_int(rng, -14 * _Q, 14 * _Q), _draw_int(rng, -14 * _Q, 14 * _Q)
    line = (2 * np.arange(size, dtype=np.int64) + 1 - size) * (_SIDE * _Q) // (2 * size)
    x, y = line[None, :], line[:, None]
    u, v = _rotate(x - shift_x, y - shift_y, angle)
    return _Frame(x, y, u, v, _SIDE * _Q // size)


# ---- What a part is made of ----------------------------------------------------------------------------


@dataclass(frozen=True)
class _Layer:
    """Rounded box, the one shape that everything is drawn with; lengths in units.

    Attributes:
        half: half of its width and of its height.
        radius: of its corners, at least 1; a circle where equal to both halves.
        colour: RGB.
        at: centre, from that of the component.
        relief: how much of 256 the upper left is lighter, and the lower right darker, than the colour.
        soft: width of a blurred edge; 0 for a sharp one.
        alpha: opacity, of 256.
        hollow: whether there is no surface here that a defect could mark.
    """

    half: tuple[int, int]
    radius: int
    colour: _Colour
    at: tuple[int, int] = (0, 0)
    relief: int = 0
    soft: int = 0
    alpha: int = 256
    hollow: bool = False

    def coverage(self, u: _Ints, v: _Ints, sharp: int) -> _Ints:
        """Coverage of pixels given their coordinates from the centre, and the width of a sharp edge."""
        beyond_u = np.abs(u) - (self.half[0] - self.radius) * _Q
        beyond_v = np.abs(v) - (self.half[1] - self.radius) * _Q
        squared = np.maximum(beyond_u, 0) ** 2 + np.maximum(beyond_v, 0) ** 2
        depth = np.minimum(np.maximum(beyond_u, beyond_v), 0)
        return _coverage(_disc_distance(squared, self.radius * _Q) + depth, max(self.soft * _Q, sharp))

    def shade(self, u: _Ints, v: _Ints) -> _Ints:
        """Colour (H, W, 3) of pixels given their coordinates from the centre."""
        slope = np.clip(-(u + v) * 256 // (sum(self.half) * _Q), -256, 256)
        shaded: _Ints = _rgb(self.colour) * (256 + (slope * self.relief >> 8))[:, :, None] >> 8
        return shaded


@dataclass(frozen=True)
class _Component:
    """Layers, from the lowest up, at a place on the plate: a position in units and a turn in 0.1 degree."""

    family: str
    at: tuple[int, int]
    layers: tuple[_Layer, ...]
    turn: int = 0

    @property
    def reach(self) -> int:
        """Half of a square that holds the component at any turn, with its shadow."""
        return max(sum(layer.half) + abs(layer.at[0]) + abs(layer.at[1]) + layer.soft for layer in self.layers)


def _disc(radius: int, colour: _Colour, *, relief: int, hollow: bool = False) -> _Layer:
    return _Layer((radius, radius), radius, colour, relief=relief, hollow=hollow)


def _shadow(half: tuple[int, int], radius: int) -> _Layer:
    """Shadow of a component that is lit from the upper left."""
    return _Layer((half[0] + 3, half[1] + 3), radius, (14, 15, 18), at=(7, 7), soft=18, alpha=150)


def _hole(at: tuple[int, int], radius: int) -> _Component:
    chamfer = _disc(radius + 7, (150, 153, 156), relief=-90)
    bore = _disc(radius, (30, 32, 36), relief=-150, hollow=True)
    return _Component("hole", at, (chamfer, bore))


def _screw(at: tuple[int, int]) -> _Component:
    layers = (
        _shadow((46, 46), 46),
        _disc(46, (128, 130, 134), relief=130),
        _disc(38, (186, 188, 190), relief=40),
        _Layer((38, 7), 2, (44, 44, 48)),
        _Layer((36, 2), 1, (214, 215, 216), at=(0, 7), alpha=150),
    )
    return _Component("screw", at, layers)


def _gasket(at: tuple[int, int], radius: int) -> _Component:
    layers = (
        _shadow((radius, radius), radius),
        _disc(radius, (26, 92, 66), relief=60),
        _disc(radius - 6, (38, 122, 88), relief=90),
        _disc(radius - 17, (52, 142, 106), relief=20),
        _disc(radius - 27, (28, 96, 70), relief=-80),
        _disc(radius - 37, (22, 24, 28), relief=-200, hollow=True),
    )
    return _Component("gasket", at, layers)


def _fuse(at: tuple[int, int], colour: _Colour) -> _Component:
    dark = (colour[0] * 5 // 8, colour[1] * 5 // 8, colour[2] * 5 // 8)
    light = (colour[0] + 24, colour[1] + 24, colour[2] + 24)
    contacts = [_Layer((9, 19), 4, (196, 190, 172), at=(end, 0), relief=70) for end in (-66, 66)]
    layers = (
        _shadow((88, 40), 14),
        _Layer((88, 40), 14, dark, relief=90),
        _Layer((82, 34), 10, colour, relief=36),
        _Layer((44, 21), 7, dark, relief=-70),
        _Layer((41, 18), 5, light, relief=20),
        *contacts,
    )
    return _Component("fuse", at, layers)


def _label(at: tuple[int, int]) -> _Component:
    bars, left = [], -138
    for half, gap in zip((2, 5, 2, 3, 6, 2, 4, 2, 5, 3, 2, 6), (5, 4, 8, 5, 4, 7, 4, 6, 5, 4, 8, 0), strict=True):
        bars.append(_Layer((half, 32), 1, (40, 40, 44), at=(left + half, -6)))
        left += 2 * half + gap
    lines = [_Layer((half, 5), 2, (70, 72, 78), at=(38 + half, row)) for half, row in ((56, -30), (44, -8), (56, 14))]
    base = (
        _Layer((170, 58), 8, (20, 20, 22), at=(2, 2), soft=8, alpha=130),
        _Layer((170, 58), 7, (212, 211, 203)),
    )
    return _Component("label", at, (*base, *bars, *lines))


def _package(at: tuple[int, int]) -> _Component:
    pins = [_Layer((7, 78), 3, (190, 190, 186), at=(row, 0)) for row in range(-60, 61, 24)]
    layers = (
        _shadow((80, 76), 10),
        *pins,
        _Layer((82, 60), 6, (30, 31, 34), relief=80),
        _Layer((77, 55), 5, (46, 47, 51), relief=24),
        _Layer((7, 7), 7, (24, 24, 27), at=(-56, 34)),
        _Layer((42, 4), 2, (120, 122, 124), at=(10, -14)),
        _Layer((30, 4), 2, (120, 122, 124), at=(-2, 6)),
    )
    return _Component("package", at, layers)


_HALF = (425, 365)  # of the plate
_BORE, _BORE_RADIUS = (-150, -70), 120
_COMPONENTS = (
    _hole((-350, -290), 30),
    _hole((350, 290), 30),
    _hole((350, -290), 20),
    _hole((-350, 290), 20),
    _hole(_BORE, _BORE_RADIUS),
    _screw((350, -290)),
    _screw((-350, 290)),
    _gasket(_BORE, 164),
    _fuse((200, -170), (196, 44, 40)),
    _fuse((200, -60), (46, 92, 190)),
    _fuse((200, 50), (214, 160, 30)),
    _label((-110, 235)),
    _package((200, 200)),
)
_MISSABLE = ("screw", "gasket", "fuse", "label", "package")
_SPARE = ("screw", "fuse")  # what an extra component may be
_FREE = ((-30, -292, 0), (176, -288, 0), (360, 70, 900), (-368, 110, 900))  # where: position and turn


def _assembly(seed: int, kind: str) -> tuple[list[_Component], list[_Component]]:
    """Components as they lie on the plate, and those that a logical defect's mask consists of."""
    rng = _random(seed, "assembly")
    fitted = [_placed(rng, component) for component in _COMPONENTS]
    rng = _random(seed, f"defect {kind}")
    if kind == "missing":
        missing = _pick(rng, [component for component in fitted if component.family in _MISSABLE])
        return [component for component in fitted if component is not missing], [missing]
    if kind == "extra":
        spare = _pick(rng, [component for component in fitted if component.family in _SPARE])
        u, v, turn = _pick(rng, _FREE)
        extra = _placed(rng, replace(spare, at=(u, v), turn=turn))
        return [*fitted, extra], [extra]
    if kind == "swapped":
        fuses = [component for component in fitted if component.family == "fuse"]
        first = _pick(rng, fuses)
        second = _pick(rng, [fuse for fuse in fuses if fuse is not first])
        swapped = [replace(first, at=second.at), replace(second, at=first.at)]
        others = [component for component in fitted if component is not first and component is not second]
        return others + swapped, [first, second, *swapped]
    return fitted, []


def _pick(rng: np.random.RandomState, choices: Sequence[_T]) -> _T:
    return choices[_draw_int(rng, 0, len(choices) - 1)]


def _placed(rng: np.random.RandomState, component: _Component) -> _Component:
    """Component as an assembler places it: a little off, and a screw turned as far as it went."""
    at = (component.at[0] + _draw_int(rng, -2, 2), component.at[1] + _draw_int(rng, -2, 2))
    slack = 900 if component.family == "screw" else 8
    return replace(component, at=at, turn=component.turn + _draw_int(rng, -slack, slack))


# ---- Drawing -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Plate:
    """Canvas of the part, drawn on in place.

    Attributes:
        colour: (H, W, 3), RGB in steps of 1/256.
        outline: (H, W) coverage of the background by the part.
        surface: (H, W) coverage by surface that a defect can mark: none in a hole.
    """

    colour: _Ints
    outline: _Ints
    surface: _Ints


_OUTLINE = _Layer(_HALF, 60, (118, 121, 126), relief=110)
_FACE = _Layer((_HALF[0] - 9, _HALF[1] - 9), 52, (160, 163, 167))


def _plate(seed: int, frame: _Frame) -> _Plate:
    """Bare plate: a bevelled edge around a face brushed lengthwise."""
    rng = _random(seed, "brush")
    brush = _value_noise(rng, frame.u, frame.v, (260, 5)) + _value_noise(rng, frame.u, frame.v, (70, 3))
    stains = _value_noise(rng, frame.u, frame.v, (180, 120))
    face = _rgb(_FACE.colour) + (brush * 13 + stains * 5)[:, :, None]
    colour = _OUTLINE.shade(frame.u, frame.v)
    _blend(colour, face, _FACE.coverage(frame.u, frame.v, frame.soft))
    outline = _OUTLINE.coverage(frame.u, frame.v, frame.soft)
    return _Plate(colour, outline, outline.copy())


def _layers(component: _Component, frame: _Frame) -> Iterator[tuple[_Window, _Layer, _Ints, _Ints]]:
    """Layers of a component, each with its window, its coverage there and its colour."""
    window = frame.near(component.at, component.reach)
    for layer in component.layers:
        offset_u, offset_v = _rotate(layer.at[0] * _Q, layer.at[1] * _Q, -component.turn)
        u = frame.u[window] - component.at[0] * _Q - offset_u
        v = frame.v[window] - component.at[1] * _Q - offset_v
        along, across = _rotate(u, v, component.turn)
        coverage = layer.coverage(along, across, frame.soft) * layer.alpha >> 8
        # Light falls from one side whichever way the component is turned, so the relief does not turn with it.
        yield window, layer, coverage, layer.shade(u, v)


def _draw(component: _Component, frame: _Frame, plate: _Plate) -> None:
    for window, layer, coverage, colour in _layers(component, frame):
        _blend(plate.colour[window], colour, coverage)
        surface = plate.surface[window]
        surface += ((0 if layer.hollow else 256) - surface) * coverage >> 8


def _cover(component: _Component, frame: _Frame, plate: _Plate, mask: _Bools) -> None:
    for window, _, coverage, _ in _layers(component, frame):
        mask[window] |= (coverage > 0) & (plate.outline[window] > 0)


def _background(seed: int, frame: _Frame) -> _Ints:
    """Matte belt under the part, with the part's shadow on it (H, W, 3)."""
    rng = _random(seed, "belt")
    grain = _value_noise(rng, frame.x, frame.y, (9, 9)) + _value_noise(rng, frame.x, frame.y, (160, 160))
    scene = _rgb((50, 56, 66)) + (grain * 7)[:, :, None]
    shadow = _Layer(_HALF, 70, (12, 14, 18), soft=60, alpha=210)
    offset = 16 * _Q
    coverage = shadow.coverage(frame.u - offset, frame.v - offset, frame.soft) * shadow.alpha >> 8
    _blend(scene, _rgb(shadow.colour), coverage)
    return scene


def _photograph(seed: int, frame: _Frame, scene: _Ints) -> NDArray[np.uint8]:
    """Light a scene (H, W, 3) and add the sensor's noise."""
    rng = _random(seed, "light")
    gain = _draw_int(rng, 232, 280)  # of 256
    across, _ = _rotate(frame.x, frame.y, _draw_int(rng, 0, 3599))
    fall_off = across * _draw_int(rng, 10, 44) // (_SIDE // 2 * _Q)
    # A lamp's reflection: a wide soft band across the image.
    band, _ = _rotate(frame.x, frame.y, _draw_int(rng, 150, 600))
    band = band - _draw_int(rng, -260, 260) * _Q
    width = 300 * _Q
    bump = np.maximum(width * width - band * band, 0) // (width * width >> 8)
    shine = (bump * bump >> 8) * _draw_int(rng, 14, 40) >> 8
    light = gain + fall_off + shine
    # The four bytes of a random word, summed, are close to a normal distribution of deviation 148.
    words = _random(seed, "noise").randint(0, 1 << 32, scene.shape, dtype=np.uint32).astype(np.int64)
    noise = (words & 255) + (words >> 8 & 255) + (words >> 16 & 255) + (words >> 24) - 510
    lit = (scene * light[:, :, None] >> 8) + noise * 4
    image: NDArray[np.uint8] = np.clip(lit + 128 >> 8, 0, 255).astype(np.uint8)
    return image


# ---- Structural defects --------------------------------------------------------------------------------
# Each marks the plate and the mask (H, W) in place.


def _scratch(rng: np.random.RandomState, frame: _Frame, plate: _Plate, mask: _Bools) -> None:
    """Bent groove, bright with a dark lip, uneven and running out at both ends."""
    centre = _spot(rng)
    length, turn = _draw_int(rng, 70, 170), _draw_int(rng, 0, 3599)  # length: half of it
    bend, radius = _draw_int(rng, -50, 50), _draw_int(rng, 5 * _Q // 2, 4 * _Q)
    window = frame.near(centre, 230)
    u, v = frame.u[window] - centre[0] * _Q, frame.v[window] - centre[1] * _Q
    along, across = _rotate(u, v, turn)
    run_out = np.clip(256 - 256 * np.abs(along) // (length * _Q), 0, 128)
    depth = 100 + run_out + (_value_noise(rng, along, across, (30, 3)) >> 1)
    for shift, colour, alpha in ((3, (60, 60, 64), 128), (0, (232, 232, 228), 256)):
        squared = _squared_distance(along - shift * _Q, across - shift * _Q, length, bend)
        coverage = _coverage(_disc_distance(squared, radius), frame.soft) * depth * alpha >> 16
        _mark(plate, mask, window, _rgb(colour), coverage)


def _squared_distance(x: _Ints, y: _Ints, length: int, bend: int) -> _Ints:
    """Squared distances to a parabola from (-length, 0) by (0, bend) to (length, 0), in eight chords."""
    knots = [(length * i * _Q // 4, bend * (16 - i * i) * _Q // 16) for i in range(-4, 5)]
    squared = np.full_like(x, 1 << 62)
    for (x0, y0), (x1, y1) in pairwise(knots):
        dx, dy = x1 - x0, y1 - y0
        t = np.clip(((x - x0) * dx + (y - y0) * dy) * 256 // (dx * dx + dy * dy), 0, 256)
        squared = np.minimum(squared, (x - x0 - (t * dx >> 8)) ** 2 + (y - y0 - (t * dy >> 8)) ** 2)
    return squared


def _stain(rng: np.random.RandomState, frame: _Frame, plate: _Plate, mask: _Bools) -> None:
    """Dried drop of oil: a translucent tint, darker towards its rim."""
    centre, radius = _spot(rng), _draw_int(rng, 45, 85)
    window = frame.near(centre, 2 * radius)
    distance = _blob(rng, frame, window, centre, (radius, radius * _draw_int(rng, 6, 10) // 10), radius // 3)
    soft = max(12 * _Q, frame.soft)
    # Opacity falls from the rim inwards; the tint multiplies, so the texture beneath shows through.
    opacity = np.clip(150 + distance * 60 // (20 * _Q), _draw_int(rng, 70, 100), 150)
    tinted = plate.colour[window] * np.array([128, 98, 56], dtype=np.int64) >> 8
    _mark(plate, mask, window, tinted, _coverage(distance, soft) * opacity >> 8)


def _chip(rng: np.random.RandomState, frame: _Frame, plate: _Plate, mask: _Bools) -> None:
    """Piece broken off the edge, which leaves a rough fracture around the gap."""
    width, depth = _draw_int(rng, 40, 74), _draw_int(rng, 34, 50)
    side = _draw_int(rng, 0, 3)
    half_across, half_along = _HALF if side % 2 else _HALF[::-1]
    along = _draw_int(rng, 150 - half_along, half_along - 150)
    edge = (half_across + 4) * (1 if side < 2 else -1)
    centre = (edge, along) if side % 2 else (along, edge)
    halves = (depth, width) if side % 2 else (width, depth)
    window = frame.near(centre, 2 * width)
    distance = _blob(rng, frame, window, centre, halves, depth // 3)
    grain = _value_noise(rng, frame.u[window], frame.v[window], (7, 7))
    fracture = _rgb((120, 118, 116)) + (grain * 44)[:, :, None]
    _mark(plate, mask, window, fracture, _coverage(distance, frame.soft))
    gap = _coverage(distance + 9 * _Q, frame.soft)
    outline = plate.outline[window]
    lost = outline * gap >> 8
    outline -= lost
    mask[window] |= lost > 0


def _spot(rng: np.random.RandomState) -> tuple[int, int]:
    """Place on the plate, in units, far enough from its edge and from the bore to leave a mark on it."""
    while True:
        u, v = _draw_int(rng, -240, 240), _draw_int(rng, -180, 180)
        if (u - _BORE[0]) ** 2 + (v - _BORE[1]) ** 2 > (_BORE_RADIUS + 50) ** 2:
            return u, v


def _blob(
    rng: np.random.RandomState,
    frame: _Frame,
    window: _Window,
    centre: tuple[int, int],
    halves: tuple[int, int],
    rough: int,
) -> _Ints:
    """Signed distance to an ellipse with an uneven edge; centre, halves and unevenness in units."""
    u, v = frame.u[window] - centre[0] * _Q, frame.v[window] - centre[1] * _Q
    radius = min(halves)
    squared = (u * radius // halves[0]) ** 2 + (v * radius // halves[1]) ** 2
    uneven = _value_noise(rng, u, v, (radius, radius)) * 2 + _value_noise(rng, u, v, (radius // 3, radius // 3))
    return _disc_distance(squared, radius * _Q) + (uneven * rough * _Q >> 9)


def _mark(plate: _Plate, mask: _Bools, window: _Window, colour: _Ints, coverage: _Ints) -> None:
    """Blend a colour into what surface there is in a window."""
    coverage = coverage * plate.surface[window] >> 8
    _blend(plate.colour[window], colour, coverage)
    mask[window] |= coverage > 0
