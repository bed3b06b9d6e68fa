"""List the cameras found, or grab one frame of one and say what it offers."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from lineward.runtime.cli import PASSED
from lineward.runtime.cli.console import print_error, print_table
from lineward.runtime.errors import CameraError, MissingExtraError
from lineward.runtime.images import encode_png
from lineward.runtime.preprocessing import Frame
from lineward.runtime.station.cameras import Camera, genicam, open_camera, video
from lineward.runtime.station.configuration import (
    FolderCamera,
    GenicamCamera,
    PlcTrigger,
    ReplayCamera,
    VideoCamera,
    read_configuration,
)

_PATIENCE = 5.0  # seconds that a frame may take


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command's arguments."""
    parser.add_argument(
        "--preview",
        metavar="CAMERA",
        help="grab one frame: an id as listed, a device such as /dev/video0, or the station file whose camera is meant",
    )
    parser.add_argument("-o", "--output", type=Path, metavar="PNG", help="where the frame is written (with --preview)")


def run(arguments: argparse.Namespace) -> int:
    """List, or grab a frame."""
    if arguments.preview is None:
        _list()
        return PASSED
    camera, fired = _open(arguments.preview)
    try:
        _preview(camera, fired, arguments.output)
    finally:
        camera.close()
    return PASSED


def _list() -> None:
    """Print what is found; without Aravis still the V4L2 devices."""
    try:
        found = genicam.find_cameras()
    except MissingExtraError as error:
        print_error(str(error))
        found = []
    rows = [(c.id, "genicam", f"{c.vendor} {c.model}".strip(), c.address, c.protocol) for c in found]
    rows += [(device.path, "video", device.name, device.path, "V4L2") for device in video.find_devices()]
    print_table("", ("id", "kind", "camera", "address", "protocol"), rows)
    if not rows:
        print_error("no camera answers\n  -> check power, cable and network; GigE Vision needs UDP port 3956 open")


def _open(wanted: str) -> tuple[Camera, bool]:
    """The camera of a station file, or one that is named, and whether it must be fired.

    One with a trigger line runs freely, for there may be no parts on the line.
    """
    path = Path(wanted)
    if wanted.startswith("/dev/"):
        return open_camera(VideoCamera(device=wanted), PlcTrigger()), True
    table = read_configuration(path).camera if path.is_file() else GenicamCamera(id=wanted)
    if isinstance(table, FolderCamera):
        raise CameraError(f"{path}: a preview would take an image out of {table.path}", do="look at the images there")
    if isinstance(table, GenicamCamera):
        return genicam.open_genicam(table, None), False
    runs = isinstance(table, ReplayCamera) and table.rate is not None
    return open_camera(table, PlcTrigger()), not runs


def _preview(camera: Camera, fired: bool, output: Path | None) -> None:
    frame = _grab(camera, fired)
    height, width = frame.shape[:2]
    form = camera.pixel_format if isinstance(camera, genicam.Genicam) else "gray" if frame.ndim == 2 else "colour"
    rows = [
        ("camera", camera.name),
        ("frame", f"{width} x {height}, {form}, {8 * frame.itemsize} bits, values {frame.min()} to {frame.max()}"),
    ]
    if isinstance(camera, genicam.Genicam):
        rows += _describe(camera.offer())
    if output is not None:
        output.write_bytes(encode_png(frame))
        rows.append(("written to", str(output)))
    print_table("", ("", ""), rows)


def _grab(camera: Camera, fired: bool) -> Frame:
    """One frame, copied.

    Raises:
        CameraError: none came whole.
    """
    camera.start()
    if fired:
        camera.fire()
    end = time.monotonic() + _PATIENCE
    while time.monotonic() < end:
        capture = camera.capture(end - time.monotonic())
        if capture is not None and capture.pixels is not None:
            return capture.pixels.copy()
    raise CameraError(
        f"{camera.name}: no whole frame within {_PATIENCE:g} s",
        do="check exposure and packet size; a firewall may hold back the camera's UDP packets",
    )


def _describe(offer: genicam.Offer) -> list[tuple[str, str]]:
    rows = [
        ("pixel formats", ", ".join(offer.pixel_formats)),
        ("trigger sources", ", ".join(offer.trigger_sources) or "none"),
    ]
    if offer.sensor is not None:
        rows.append(("sensor", f"{offer.sensor[0]} x {offer.sensor[1]}"))
    if offer.exposure is not None:
        rows.append(("exposure", f"{offer.exposure[0] * 1e6:.0f}us to {offer.exposure[1] * 1e6:.0f}us"))
    if offer.gain is not None:
        rows.append(("gain", f"{offer.gain[0]:g} to {offer.gain[1]:g}"))
    return rows
