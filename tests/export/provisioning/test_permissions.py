"""What systemd and udev let a station open."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from lineward.export.provisioning import permissions as module
from lineward.export.provisioning.permissions import read_permissions
from lineward.runtime.errors import ProvisioningError
from lineward.runtime.station.configuration import Configuration, read_configuration

UNIT = Path(module.__file__).with_name("lineward@.service")
HEAD = 'name = "line-3"\nfolder = "/var/lib/lineward/line-3"\ndeadline = "100ms"\njobs = { 1 = "b.lineward" }\n'
VIDEO = (
    '[camera]\nkind = "video"\ndevice = "/dev/video0"\n[trigger]\nsource = "gpio"\nchip = "/dev/gpiochip1"\nline = 3\n'
)
GENICAM = '[camera]\nkind = "genicam"\n'
OUTPUT = '[[outputs]]\nchip = "/dev/gpiochip0"\nline = 1\nafter = "1s"\n'


def station(tmp_path: Path, text: str) -> Configuration:
    path = tmp_path / "station.toml"
    path.write_text(HEAD + text)
    return read_configuration(path)


def directives(text: str) -> list[str]:
    return [line for line in text.splitlines() if "=" in line and not line.startswith("#")]


CLOSED = "DevicePolicy=closed"
LOW = ["CapabilityBoundingSet=CAP_NET_BIND_SERVICE", "AmbientCapabilities=CAP_NET_BIND_SERVICE"]


@pytest.mark.parametrize(
    ("text", "expected", "rules"),
    [
        (GENICAM, [CLOSED, "DeviceAllow=char-usb_device rw"], []),
        (
            VIDEO + OUTPUT,
            [
                "SupplementaryGroups=video",
                CLOSED,
                *(f"DeviceAllow=/dev/{name} rw" for name in ("gpiochip0", "gpiochip1", "video0")),
            ],
            ["gpiochip0", "gpiochip1"],
        ),
        (GENICAM + '[plc]\nkind = "modbus-server"\n', [*LOW, CLOSED, "DeviceAllow=char-usb_device rw"], []),
        (GENICAM + '[plc]\nkind = "modbus-server"\nport = 1502\n', [CLOSED, "DeviceAllow=char-usb_device rw"], []),
        (GENICAM + '[plc]\nkind = "opcua-server"\n', [CLOSED, "DeviceAllow=char-usb_device rw"], []),
        (GENICAM + '[plc]\nkind = "opcua-server"\nendpoint = "opc.tcp://0.0.0.0:840"\n', [*LOW, CLOSED], []),
        (GENICAM + '[engine]\nname = "tensorrt"\n', ["SupplementaryGroups=video", "SupplementaryGroups=render"], []),
        (
            '[camera]\nkind = "video"\ndevice = "nvarguscamerasrc ! appsink"\n[trigger]\nsource = "plc"\n'
            '[plc]\nkind = "modbus-client"\nhost = "plc"\n',
            ["SupplementaryGroups=video"],
            [],
        ),
        (
            '[camera]\nkind = "folder"\npath = "/srv/in"\ndone = "/srv/done"\n',
            [CLOSED, 'ReadWritePaths="/srv/in"', 'ReadWritePaths="/srv/done"'],
            [],
        ),
    ],
)
def test_a_station_opens_what_its_file_names_and_no_more(tmp_path, text: str, expected: list[str], rules: list[str]):
    permissions = read_permissions(station(tmp_path, text))
    found = directives(permissions.drop_in("line-3"))
    assert found[: len(expected)] == expected
    assert set(found) - set(expected) <= {"DeviceAllow=char-usb_device rw"}
    assert permissions.udev_rules().splitlines() == [
        f'SUBSYSTEM=="gpio", KERNEL=="{chip}", GROUP="lineward", MODE="0660"' for chip in rules
    ]


@pytest.mark.parametrize("chip", ["gpiochip0", "/etc/shadow", "/dev/../etc/x", "/dev/x rw\\nUser=root", "/dev/%h"])
def test_what_is_no_device_file_never_reaches_the_unit(tmp_path, chip: str):
    with pytest.raises(ProvisioningError, match="not a device file"):
        read_permissions(station(tmp_path, GENICAM + OUTPUT.replace("/dev/gpiochip0", chip)))


def test_the_unit_is_hardened_and_lets_a_station_work():
    lines = set(directives(UNIT.read_text()))
    assert {"Type=notify", "WatchdogSec=30", "User=lineward", "ProtectSystem=strict", "NoNewPrivileges=yes"} <= lines
    assert {"LimitRTPRIO=40", "LimitMEMLOCK=infinity", "StateDirectory=lineward/%i"} <= lines
    assert "RestrictRealtime=yes" not in lines
    assert "MemoryDenyWriteExecute=yes" not in lines


@pytest.mark.parametrize("name", ["lineward", "lineward-pull"])
def test_systemd_understands_every_line(tmp_path, name):
    if not shutil.which("systemd-analyze"):
        pytest.skip("no systemd-analyze on this machine")
    # The program does not exist here, which is a complaint of another kind than a line that is not understood.
    unit = tmp_path / f"{name}@line-3.service"
    text = UNIT.with_name(f"{name}@.service").read_text()
    unit.write_text(text.replace("/opt/lineward/bin/lineward", "/bin/true"))
    folder = tmp_path / f"{name}@line-3.service.d"
    folder.mkdir()
    (folder / "device.conf").write_text(read_permissions(station(tmp_path, VIDEO + OUTPUT)).drop_in("line-3"))
    told = subprocess.run(["systemd-analyze", "verify", "--man=no", unit], capture_output=True, text=True, check=False)
    mine = [line for line in told.stderr.splitlines() if f"{name}@" in line]
    assert mine == []


def test_the_document_shows_the_unit_that_pulls():
    text = (Path(__file__).parents[3] / "docs" / "fleet.md").read_text()
    shown = text.partition("```ini\n")[2].partition("```")[0]
    unit = UNIT.with_name("lineward-pull@.service").read_text()
    assert shown.partition("[Unit]")[2] == unit.partition("[Unit]")[2]
