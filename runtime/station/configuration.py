"""The station file: one station's camera, triggers, PLC, bundles and limits, strict about every word in it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from lineward.runtime.delivery.release import Group
from lineward.runtime.errors import StationError, first_line
from lineward.runtime.manifest import LONGEST_PRODUCT
from lineward.runtime.quantities import parse_duration, parse_rate, parse_size

Port = Annotated[int, Meta(ge=1, le=65535)]
Share = Annotated[float, Meta(ge=0, le=1)]
Whole = Annotated[int, Meta(ge=1)]
JobNumber = Annotated[int, Meta(ge=1, le=65535)]
Product = Annotated[str, Meta(min_length=1, max_length=LONGEST_PRODUCT)]


class Seconds(float):
    """A time in the station file: "12ms"."""


class PerSecond(float):
    """A rate in the station file: "5/s"."""


class Bytes(int):
    """A size in the station file: "20GB"."""


_PARSERS = {Seconds: parse_duration, PerSecond: parse_rate, Bytes: parse_size}


class Table(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the station file."""


class GenicamCamera(Table, frozen=True, kw_only=True, tag_field="kind", tag="genicam"):
    """A GigE Vision or USB3 Vision camera, through Aravis.

    Attributes:
        id: as `lineward cameras` prints it; empty: the only one there is.
        pixel_format: a GenICam pixel format, such as "Mono8", "Mono12", "BayerRG8", "RGB8"; None: as the camera is set.
        exposure: exposure time; None: as the camera is set.
        gain: in the camera's unit; None: as the camera is set.
        region: x, y, width, height in pixels; None: as the camera is set.
        packet_size: bytes of a stream packet; None: the greatest that arrives.
        buffers: frames the driver may hold before one is lost.
    """

    id: str = ""
    pixel_format: str | None = None
    exposure: Seconds | None = None
    gain: float | None = None
    region: tuple[int, int, int, int] | None = None
    packet_size: Whole | None = None
    buffers: Annotated[int, Meta(ge=2, le=256)] = 8


class VideoCamera(Table, frozen=True, kw_only=True, tag_field="kind", tag="video"):
    """A V4L2 device or a GStreamer pipeline, through OpenCV. It has no trigger line: triggers are fired by software.

    Attributes:
        device: "/dev/video0", or a GStreamer pipeline that ends in appsink, for a CSI camera.
        size: width, height to ask for; None: as it comes.
        exposure: exposure time; None: as the camera is set.
        gain: in the camera's unit; None: as the camera is set.
    """

    device: str
    size: tuple[Whole, Whole] | None = None
    exposure: Seconds | None = None
    gain: float | None = None


class FolderCamera(Table, frozen=True, kw_only=True, tag_field="kind", tag="folder"):
    """A folder that another program puts images into; each is a part, in the order of their arrival.

    Attributes:
        path: the folder; an image counts once it was renamed into place or written to its end.
        done: folder that taken images are moved to; None: they are deleted.
    """

    path: Path
    done: Path | None = None


class ReplayCamera(Table, frozen=True, kw_only=True, tag_field="kind", tag="replay"):
    """Recorded images, over and over, for tests and dry runs.

    Attributes:
        images: files, folders or globs.
        rate: parts a second, as if the camera's trigger line saw them; None: only when fired.
        jitter: greatest deviation from the cadence, as a share of its period.
        seed: of the jitter.
    """

    images: tuple[str, ...]
    rate: PerSecond | None = None
    jitter: Share = 0.0
    seed: int = 0


CameraTable = GenicamCamera | VideoCamera | FolderCamera | ReplayCamera


class CameraTrigger(Table, frozen=True, kw_only=True, tag_field="source", tag="camera"):
    """The camera exposes by itself, on its trigger line.

    Attributes:
        line: the camera's trigger source, such as "Line0".
        edge: which edge.
    """

    line: str = "Line0"
    edge: Literal["rising", "falling"] = "rising"


class PlcTrigger(Table, frozen=True, kw_only=True, tag_field="source", tag="plc"):
    """The PLC asks for each part."""


class GpioTrigger(Table, frozen=True, kw_only=True, tag_field="source", tag="gpio"):
    """An edge at an input of this device.

    Attributes:
        chip: character device, such as "/dev/gpiochip0".
        line: number of the line on the chip.
        edge: which edge.
        debounce: an edge counts once the line has stayed for that long; None: at once.
    """

    chip: str
    line: Annotated[int, Meta(ge=0)]
    edge: Literal["rising", "falling"] = "rising"
    debounce: Seconds | None = None


class MessageTrigger(Table, frozen=True, kw_only=True, tag_field="source", tag="message"):
    """An MQTT message on `<topic>/trigger`; needs the table [mqtt]."""


TriggerTable = CameraTrigger | PlcTrigger | GpioTrigger | MessageTrigger


class Plc(Table, frozen=True, kw_only=True):
    """What holds of every PLC.

    Attributes:
        acknowledge: the PLC acknowledges each result; without, a result stays until the next one replaces it.
        acknowledge_within: from result to acknowledgement; later, the part counts as rejected without verdict.
        waiting_results: results that may wait for the wire.
        heartbeat_within: the PLC changes its heartbeat this often, or the station goes offline; None: not asked.
    """

    acknowledge: bool = True
    acknowledge_within: Seconds = Seconds(1.0)
    waiting_results: Annotated[int, Meta(ge=0, le=64)] = 4
    heartbeat_within: Seconds | None = None


class ModbusServer(Plc, frozen=True, kw_only=True, tag_field="kind", tag="modbus-server"):
    """The PLC is a Modbus TCP client and reads and writes this station's registers (docs/plc.md).

    Attributes:
        host: address to listen on.
        port: TCP port.
    """

    host: str = "0.0.0.0"
    port: Port = 502


class ModbusClient(Plc, frozen=True, kw_only=True, tag_field="kind", tag="modbus-client"):
    """The PLC is a Modbus TCP server that holds the registers; this station reads and writes them there.

    Attributes:
        host: the PLC.
        port: TCP port.
        unit: Modbus unit identifier.
        control: first register of what the PLC tells the station.
        status: first register of what the station tells the PLC.
        poll: how often the control registers are read.
    """

    host: str
    port: Port = 502
    unit: Annotated[int, Meta(ge=0, le=255)] = 1
    control: Annotated[int, Meta(ge=0, le=65000)] = 0
    status: Annotated[int, Meta(ge=0, le=65000)] = 100
    poll: Seconds = Seconds(0.005)


class OpcuaServer(Plc, frozen=True, kw_only=True, tag_field="kind", tag="opcua-server"):
    """The PLC is an OPC UA client; the same model as nodes.

    Attributes:
        endpoint: URL to listen on.
    """

    endpoint: str = "opc.tcp://0.0.0.0:4840/lineward"


PlcTable = ModbusServer | ModbusClient | OpcuaServer


class GpioOutput(Table, frozen=True, kw_only=True):
    """A pulse at an output of this device for each part with that verdict.

    A pulse for *pass* fails closed: no pulse, a cut wire or a dead station mean reject.

    Attributes:
        chip: character device, such as "/dev/gpiochip0".
        line: number of the line on the chip.
        on: the verdict that is signalled.
        after: from trigger to the pulse, so that it meets the part at the gate; the deadline at least.
        width: length of the pulse.
        active_low: the line is low during the pulse.
    """

    chip: str
    line: Annotated[int, Meta(ge=0)]
    on: Literal["pass", "reject"] = "pass"
    after: Seconds
    width: Seconds = Seconds(0.02)
    active_low: bool = False


class Engine(Table, frozen=True, kw_only=True):
    """Where inspections run.

    Attributes:
        name: one of `lineward inspect --engine`.
        threads: threads of the CPU; None: one for each core this process may use.
        keep_warm: inspect an old frame after that much idleness, so that clocks stay up; None: never.
        hung_after: from deadline missed to a new engine in place of one that does not return.
    """

    name: str = "cpu"
    threads: Whole | None = None
    keep_warm: Seconds | None = None
    hung_after: Seconds = Seconds(2.0)


class Images(Table, frozen=True, kw_only=True):
    """Which frames are kept, and how much of the disk they may take.

    Attributes:
        save: "none", "rejects", "near" (rejects and scores near the threshold), "nth" (rejects and every nth), "all".
        near: how near to the threshold, as a share of it.
        nth: for "nth".
        budget: bytes at most; the oldest go first.
        keep_free: bytes of the disk that are left to others.
    """

    save: Literal["none", "rejects", "near", "nth", "all"] = "rejects"
    near: Share = 0.1
    nth: Whole = 100
    budget: Bytes = Bytes(10 * 10**9)
    keep_free: Bytes = Bytes(10**9)


class Trial(Table, frozen=True, kw_only=True):
    """How a bundle that was deployed proves itself on the line; else the station goes back to the one before it.

    Attributes:
        parts: how many parts it inspects on trial; 0: none.
        without_verdict: greatest share of them that it may leave without a verdict, in time.
        latency: greatest p99 of the inspection, as a share of the deadline.
        more_rejects: how much greater the share rejected may be than that of the bundle before it.
    """

    parts: Annotated[int, Meta(ge=0, le=100_000)] = 200
    without_verdict: Share = 0.02
    latency: Share = 0.8
    more_rejects: Share = 0.1


class Fleet(Table, frozen=True, kw_only=True):
    """Bundles from a repository, which `lineward pull` brings (docs/fleet.md).

    Attributes:
        repository: URL of any static web server, or a folder.
        root: the root metadata to begin with, `1.root.json` of `lineward publish init`.
        products: which product of the repository each job takes; its slots are filled.
        groups: that this station is in: a bundle may be rolled out to some of them first.
        every: how often the repository is asked.
        limit: bytes that a bundle may have.
    """

    repository: Annotated[str, Meta(min_length=1)]
    root: Path
    products: Annotated[dict[JobNumber, Product], Meta(min_length=1)]
    groups: tuple[Group, ...] = ()
    every: Seconds = Seconds(300.0)
    limit: Bytes = Bytes(10**9)


class Mqtt(Table, frozen=True, kw_only=True):
    """Results and health to a broker, off the path to the verdict.

    Attributes:
        host: the broker.
        port: TCP port.
        topic: prefix of every topic; None: "lineward/<name>".
        username: None: anonymous.
        password_file: file that holds the password.
        ca_file: certificates to trust; None: no TLS.
        health_every: how often health is published.
    """

    host: str
    port: Port = 1883
    topic: str | None = None
    username: str | None = None
    password_file: Path | None = None
    ca_file: Path | None = None
    health_every: Seconds = Seconds(10.0)


class Health(Table, frozen=True, kw_only=True):
    """Metrics and status over HTTP.

    Attributes:
        host: address to listen on.
        port: TCP port; 0: no metrics, no `lineward status`.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535)] = 9464


class Configuration(Table, frozen=True, kw_only=True):
    """A station file.

    Attributes:
        name: of the station: letters, digits, "-", "_", ".".
        folder: where journal, images and what must outlive the process are kept.
        deadline: from trigger to verdict; later, the part is rejected.
        frame_within: from firing the camera to its frame; None: the deadline.
        frames: frames in flight at most; a part that finds none free is rejected.
        keys: trusted public keys; None: as for every command.
        jobs: bundle of each job number: a file `.lineward`, or the folder of its slots (docs/delivery.md).
        calibrations: this device's own threshold of a job: a file of `lineward calibrate`, or a folder of such.
        job: active at the start, until the PLC names another.
        camera: see the tables [camera].
        trigger: see the tables [trigger].
        engine: see [engine].
        plc: see the tables [plc]; None: no PLC.
        outputs: see [[outputs]].
        images: see [images].
        trial: see [trial].
        fleet: see [fleet]; None: bundles come by `lineward deploy` alone.
        mqtt: see [mqtt]; None: no broker.
        health: see [health].
        change_within: from the PLC's naming a job to its bundle's being active; later, the change is refused.
    """

    name: Annotated[str, Meta(pattern="^[A-Za-z0-9._-]{1,64}$")]
    folder: Path
    deadline: Seconds
    camera: CameraTable
    jobs: Annotated[dict[JobNumber, Path], Meta(min_length=1)]
    calibrations: dict[JobNumber, Path] = {}
    job: JobNumber | None = None
    trigger: TriggerTable = CameraTrigger()
    frame_within: Seconds | None = None
    frames: Annotated[int, Meta(ge=2, le=256)] = 8
    keys: Path | None = None
    change_within: Seconds = Seconds(10.0)
    engine: Engine = Engine()
    plc: PlcTable | None = None
    outputs: tuple[GpioOutput, ...] = ()
    images: Images = Images()
    trial: Trial = Trial()
    fleet: Fleet | None = None
    mqtt: Mqtt | None = None
    health: Health = Health()

    @property
    def first_job(self) -> int:
        """The job at the start."""
        return min(self.jobs) if self.job is None else self.job


def read_configuration(path: str | Path) -> Configuration:
    """Read a station file; relative paths in it count from its folder.

    Raises:
        StationError: it cannot be read, is not TOML, or a table says what it must not.
    """
    path = Path(path)
    try:
        configuration = msgspec.toml.decode(path.read_bytes(), type=Configuration, dec_hook=_quantity, strict=True)
    except OSError as error:
        raise StationError(f"{path}: cannot be read ({error.strerror})", do="check the path") from error
    except (msgspec.ValidationError, msgspec.DecodeError, UnicodeDecodeError) as error:
        raise StationError(f"{path}: {first_line(error)}", do="see docs/station.md for every table") from error
    _check(configuration, path)
    return _anchored(configuration, path.absolute().parent)


def _quantity(kind: type, value: Any) -> Any:
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, str) and kind in _PARSERS:
        return kind(_PARSERS[kind](value))
    raise ValueError(f'{value!r}: write a text with its unit, such as "12ms", "5/s" or "20GB"')


def _check(c: Configuration, path: Path) -> None:
    complaints = [
        (c.first_job not in c.jobs, f"job = {c.first_job} is not among [jobs]", "name one of its numbers"),
        (
            not c.calibrations.keys() <= c.jobs.keys(),
            "[calibrations] names a job that is not among [jobs]",
            "name one of its numbers",
        ),
        (
            isinstance(c.trigger, PlcTrigger) and c.plc is None,
            'trigger by "plc" without [plc]',
            "add the table [plc]",
        ),
        (
            isinstance(c.trigger, MessageTrigger) and c.mqtt is None,
            'trigger by "message" without [mqtt]',
            "add the table [mqtt]",
        ),
        (
            isinstance(c.trigger, CameraTrigger) and isinstance(c.camera, VideoCamera),
            "a video camera has no trigger line",
            'set trigger.source to "plc", "gpio" or "message"',
        ),
        (
            isinstance(c.camera, FolderCamera) and not isinstance(c.trigger, CameraTrigger),
            "a watched folder cannot be fired",
            "leave [trigger] out: each image is its own trigger",
        ),
        (
            isinstance(c.camera, ReplayCamera) and (c.camera.rate is None) == isinstance(c.trigger, CameraTrigger),
            "a replay either has a rate or is fired by a trigger",
            'set camera.rate, or trigger.source to "plc", "gpio" or "message"',
        ),
        (
            any(output.after < c.deadline for output in c.outputs),
            "an output's pulse comes before the deadline, when there may be no verdict yet",
            "set its `after` to the deadline or more",
        ),
        (
            c.fleet is not None and not c.fleet.products.keys() <= c.jobs.keys(),
            "[fleet] products names a job that is not among [jobs]",
            "name one of its numbers",
        ),
        (
            c.fleet is not None and urlsplit(c.fleet.repository).scheme not in ("", "http", "https", "file"),
            "[fleet] repository is neither a web address nor a folder",
            'write "https://…", or the path of a folder',
        ),
    ]
    for wrong, what, do in complaints:
        if wrong:
            raise StationError(f"{path}: {what}", do=do)


def _anchored(c: Configuration, root: Path) -> Configuration:
    camera = c.camera
    if isinstance(camera, FolderCamera):
        done = camera.done and root / camera.done
        camera = msgspec.structs.replace(camera, path=root / camera.path, done=done)
    elif isinstance(camera, ReplayCamera):
        camera = msgspec.structs.replace(camera, images=tuple(str(root / image) for image in camera.images))
    mqtt = c.mqtt and msgspec.structs.replace(
        c.mqtt,
        password_file=c.mqtt.password_file and root / c.mqtt.password_file,
        ca_file=c.mqtt.ca_file and root / c.mqtt.ca_file,
    )
    fleet = c.fleet
    if fleet is not None:
        place = fleet.repository if urlsplit(fleet.repository).scheme else str(root / fleet.repository)
        fleet = msgspec.structs.replace(fleet, repository=place, root=root / fleet.root)
    return msgspec.structs.replace(
        c,
        camera=camera,
        mqtt=mqtt,
        fleet=fleet,
        folder=root / c.folder,
        keys=c.keys and root / c.keys,
        jobs={number: root / bundle for number, bundle in c.jobs.items()},
        calibrations={number: root / place for number, place in c.calibrations.items()},
    )
