from __future__ import annotations

import re
from pathlib import Path

import msgspec
import pytest

from lineward.runtime.errors import StationError
from lineward.runtime.station import configuration as tables
from lineward.runtime.station.configuration import read_configuration

DOCUMENT = Path(__file__).parents[3] / "docs" / "station.md"
LEAST = """\
name = "desk"
folder = "state"
deadline = "200ms"
[jobs]
1 = "part.lineward"
[camera]
kind = "replay"
images = ["images"]
rate = "5/s"
"""
FLEET = """[fleet]
repository = "https://bundles.plant.example"
root = "root.json"
"""
PARTS = {
    "The file itself": tables.Configuration,
    '[camera] kind = "genicam"': tables.GenicamCamera,
    '[camera] kind = "video"': tables.VideoCamera,
    '[camera] kind = "folder"': tables.FolderCamera,
    '[camera] kind = "replay"': tables.ReplayCamera,
    '[trigger] source = "camera"': tables.CameraTrigger,
    '[trigger] source = "plc"': tables.PlcTrigger,
    '[trigger] source = "gpio"': tables.GpioTrigger,
    '[trigger] source = "message"': tables.MessageTrigger,
    "[plc], every kind": tables.Plc,
    '[plc] kind = "modbus-server"': tables.ModbusServer,
    '[plc] kind = "modbus-client"': tables.ModbusClient,
    '[plc] kind = "opcua-server"': tables.OpcuaServer,
    "[[outputs]]": tables.GpioOutput,
    "[engine]": tables.Engine,
    "[images]": tables.Images,
    "[trial]": tables.Trial,
    "[fleet]": tables.Fleet,
    "[mqtt]": tables.Mqtt,
    "[health]": tables.Health,
}


def write(folder: Path, text: str) -> Path:
    path = folder / "station.toml"
    path.write_text(text)
    return path


def test_the_least_station_file(tmp_path):
    read = read_configuration(write(tmp_path, LEAST))
    assert read.deadline == 0.2
    assert read.first_job == 1
    assert read.jobs == {1: tmp_path / "part.lineward"}
    assert read.folder == tmp_path / "state"
    assert read.camera == tables.ReplayCamera(images=(str(tmp_path / "images"),), rate=tables.PerSecond(5))
    assert read.trigger == tables.CameraTrigger()
    assert read.plc is None


def test_the_file_in_the_document(tmp_path):
    text = re.search(r"```toml\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)[1]
    read = read_configuration(write(tmp_path, text))
    assert read.plc.port == 502
    assert read.outputs[0].on == "pass"
    assert read.images.budget == 20 * 10**9


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"200ms"', '"200"', r"'200' is no time.*\$\.deadline"),
        ('"200ms"', "0.2", r"write a text with its unit.*\$\.deadline"),
        ('"5/s"', '"0/s"', r"is no rate.*\$\.camera\.rate"),
        ('"replay"', '"webcam"', r"Invalid value 'webcam' - at `\$\.camera\.kind`"),
        ("rate", "speed", r"unknown field `speed` - at `\$\.camera`"),
        ("name =", "nom =", "unknown field `nom`|missing required field `name`"),
        ('"desk"', '"a desk"', r"matching regex.*\$\.name"),
        ("1 =", "0 =", r">= 1 - at `key` in `\$\.jobs`"),
        ('1 = "part.lineward"\n', "", r"length >= 1 - at `\$\.jobs`"),
        ("[jobs]", "job = 2\n[jobs]", "job = 2 is not among"),
        ("[jobs]", "[jobs", "at line"),
        ('rate = "5/s"\n', "", "a replay either has a rate or is fired"),
        ("[camera]", '[trigger]\nsource = "plc"\n[camera]', r"trigger by \"plc\" without \[plc\]"),
        ("[camera]", '[trigger]\nsource = "message"\n[camera]', r"trigger by \"message\" without \[mqtt\]"),
        ('kind = "replay"\nimages = ["images"]\nrate = "5/s"', 'kind = "video"\ndevice = "0"', "has no trigger line"),
        (
            'kind = "replay"\nimages = ["images"]\nrate = "5/s"',
            'kind = "folder"\npath = "in"\n[plc]\nkind = "modbus-server"\n[trigger]\nsource = "plc"',
            "a watched folder cannot be fired",
        ),
        (
            "[camera]",
            '[[outputs]]\nchip = "/dev/gpiochip0"\nline = 1\nafter = "100ms"\n[camera]',
            "pulse comes before the deadline",
        ),
        ("[camera]", FLEET + "products = { 2 = 'part' }\n[camera]", "names a job that is not among"),
        (
            "[camera]",
            FLEET.replace("https", "ftp") + "products = { 1 = 'part' }\n[camera]",
            "neither a web address nor",
        ),
        ("[camera]", '[plc]\nkind = "modbus-server"\nport = 70000\n[camera]', r"<= 65535 - at `\$\.plc\.port`"),
    ],
)
def test_what_is_wrong_is_named(tmp_path, old, new, complaint):
    assert old in LEAST
    with pytest.raises(StationError, match=complaint):
        read_configuration(write(tmp_path, LEAST.replace(old, new)))


def test_no_file_and_no_text(tmp_path):
    with pytest.raises(StationError, match=r"nowhere\.toml: cannot be read"):
        read_configuration(tmp_path / "nowhere.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(StationError, match=r"binary\.toml"):
        read_configuration(tmp_path / "binary.toml")


def described() -> str:
    """Every table of the station file, from the docstrings that its reader is made of."""
    return "\n".join(part for title, table in PARTS.items() for part in _described(title, table))


def _described(title: str, table: type[msgspec.Struct]) -> list[str]:
    first, _, rest = (table.__doc__ or "").partition("\n\n")
    meaning = dict(re.findall(r"^ {8}(\w+): (.*(?:\n {12}.*)*)", rest, re.MULTILINE))
    inherited = {field.name for field in msgspec.structs.fields(table.__bases__[0])}
    fields = [field for field in msgspec.structs.fields(table) if field.name not in inherited]
    lines = [f"### {title}", first, ""]
    if fields:
        lines += ["| word | default | meaning |", "|---|---|---|"]
    for field in fields:
        lines.append(
            f"| `{field.name}` | {_default(field)} | {meaning.pop(field.name).replace('None:', 'left out:')} |"
        )
    assert not meaning, f"{table.__name__} describes what it has not: {meaning}"
    return [*lines, ""] if fields else lines


def _default(field: msgspec.structs.FieldInfo) -> str:
    if field.required:
        return "must be given"
    value = field.default
    if isinstance(value, tables.Bytes):
        return f"`{value / 10**9:g}GB`"
    if isinstance(value, tables.Seconds):
        return f"`{value:g}s`"
    if value is None or isinstance(value, msgspec.Struct) or value is msgspec.NODEFAULT or value in ((), ""):
        return ""
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def test_the_document_describes_every_table():
    text = DOCUMENT.read_text()
    begin, end = text.index("### The file itself"), text.index("## Triggers and frames")
    assert text[begin:end].strip() == described().strip(), "write what `described()` returns into docs/station.md"


@pytest.mark.parametrize(
    ("named", "place"),
    [("https://b.example/x", "https://b.example/x"), ("/mnt/share", "/mnt/share"), ("stick", "{}/stick")],
)
def test_the_repository_is_an_address_or_a_folder(tmp_path, named, place):
    table = FLEET.replace("https://bundles.plant.example", named) + 'products = { 1 = "part" }\n'
    fleet = read_configuration(write(tmp_path, LEAST + table)).fleet
    assert fleet.repository == place.format(tmp_path)
    assert fleet.root == tmp_path / "root.json"
    assert fleet.every == 300
