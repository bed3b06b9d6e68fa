"""What one station may open on its device, read from its station file: for systemd and for udev."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from lineward.runtime.errors import ProvisioningError
from lineward.runtime.station.configuration import (
    Configuration,
    FolderCamera,
    GenicamCamera,
    GpioTrigger,
    ModbusServer,
    OpcuaServer,
    VideoCamera,
)

_PRIVILEGED = 1024
_DEFAULT_OPCUA_PORT = 4840


@dataclass(frozen=True)
class Permissions:
    """What the service of a station gets beyond what every station has.

    Attributes:
        gpio_chips: device files of GPIO chips.
        devices: what systemd's DeviceAllow names; None: not known, and none is closed.
        groups: groups that own what it opens.
        folders: folders that it writes to, besides its state.
        low_port: it listens on a port below 1024.
    """

    gpio_chips: tuple[str, ...]
    devices: tuple[str, ...] | None
    groups: tuple[str, ...]
    folders: tuple[str, ...]
    low_port: bool

    def drop_in(self, station: str) -> str:
        """The unit's drop-in file."""
        lines = [f"# What station {station} may open, made by `lineward image` from its station file.", "[Service]"]
        lines += [f"SupplementaryGroups={group}" for group in self.groups]
        if self.low_port:
            lines += ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"]
        if self.devices is None:
            lines.append("# No DevicePolicy: which device files a GPU's driver needs differs from release to release.")
        else:
            lines += ["DevicePolicy=closed", *(f"DeviceAllow={device} rw" for device in self.devices)]
        lines += [f'ReadWritePaths="{folder}"' for folder in self.folders]
        return "\n".join(lines) + "\n"

    def udev_rules(self) -> str:
        """Rules that let the user `lineward` open the GPIO chips; empty where there are none."""
        names = [PurePosixPath(chip).name for chip in self.gpio_chips]
        return "".join(f'SUBSYSTEM=="gpio", KERNEL=="{name}", GROUP="lineward", MODE="0660"\n' for name in names)


def read_permissions(c: Configuration) -> Permissions:
    """What a station needs.

    Raises:
        ProvisioningError: a GPIO chip or camera is no plain device file.
    """
    chips = sorted(
        {output.chip for output in c.outputs} | ({c.trigger.chip} if isinstance(c.trigger, GpioTrigger) else set())
    )
    for chip in chips:
        _check_device(chip)
    gpu = c.engine.name != "cpu"
    devices: list[str] | None = [*chips]
    groups = ["video", "render"] if gpu else []
    folders: list[str | Path | None] = []
    if isinstance(c.camera, VideoCamera):
        groups.append("video")
        if c.camera.device.startswith("/dev/"):
            _check_device(c.camera.device)
            devices = [*chips, c.camera.device]
        else:
            devices = None  # a pipeline: what it opens is not known here
    elif isinstance(c.camera, GenicamCamera):
        devices = [*chips, "char-usb_device"]
    elif isinstance(c.camera, FolderCamera):
        folders = [c.camera.path, c.camera.done]
    return Permissions(
        tuple(chips),
        None if gpu or devices is None else tuple(devices),
        tuple(dict.fromkeys(groups)),
        tuple(str(folder) for folder in folders if folder is not None),
        _listens_below(c),
    )


def _listens_below(c: Configuration) -> bool:
    ports = [c.health.port or _PRIVILEGED]
    if isinstance(c.plc, ModbusServer):
        ports.append(c.plc.port)
    elif isinstance(c.plc, OpcuaServer):
        ports.append(urlsplit(c.plc.endpoint).port or _DEFAULT_OPCUA_PORT)
    return min(ports) < _PRIVILEGED


def _check_device(path: str) -> None:
    """What goes into a unit must be one word that systemd takes as it stands."""
    parts = PurePosixPath(path).parts
    plain = all(
        part.replace("-", "").replace("_", "").replace(".", "").replace(":", "").isalnum() for part in parts[2:]
    )
    if parts[:2] != ("/", "dev") or len(parts) < 3 or ".." in parts or not plain:
        raise ProvisioningError(f"{path!r}: not a device file", do='name it as "/dev/gpiochip0" or "/dev/video0"')
