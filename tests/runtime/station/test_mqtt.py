from __future__ import annotations

import datetime
import ipaddress
import json
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from contextlib import closing, contextmanager

import pytest

pytest.importorskip("paho.mqtt.client")

from types import SimpleNamespace

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypothesis import given
from hypothesis import strategies as st

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station import mqtt
from lineward.runtime.station.configuration import Mqtt, Seconds
from lineward.runtime.station.journal import Journal
from lineward.runtime.station.journal_reader import JournalReader
from lineward.runtime.station.mqtt import MqttPublisher, part_of
from lineward.runtime.station.mqtt_connection import WINDOW
from lineward.runtime.station.records import Event
from lineward.runtime.station.status import RecentParts, report
from tests.runtime.station.broker import PATIENCE, Broker, Subscriber, needs_mosquitto, until
from tests.runtime.station.station_samples import UTC_NS, part, status

pytestmark = needs_mosquitto


@pytest.fixture(autouse=True)
def hurry(monkeypatch):
    monkeypatch.setattr(mqtt, "_FIRST_PAUSE", 0.05)
    monkeypatch.setattr(mqtt, "_LONGEST_PAUSE", 0.2)


@pytest.fixture
def broker(tmp_path):
    folder = tmp_path / "broker"
    folder.mkdir()
    broker = Broker(folder)
    broker.start()
    try:
        yield broker
    finally:
        broker.end(signal.SIGKILL)


@pytest.fixture
def subscriber(broker):
    with closing(Subscriber(broker.port)) as subscriber:
        broker.save()
        yield subscriber


@pytest.fixture
def journal(tmp_path):
    with closing(Journal(tmp_path, "press-4")) as journal:
        yield journal


class Events(list):
    """What the publisher tells of itself."""

    def __call__(self, name: str, detail: str) -> None:
        self.append((name, detail))

    def has(self, name: str) -> bool:
        return any(event == name for event, _ in list(self))


@contextmanager
def publishing(port, journal, events=None, trigger=None, **table):
    publisher = MqttPublisher(
        Mqtt(host="127.0.0.1", port=port, **table),
        "press-4",
        journal,
        lambda: report(status(), RecentParts()),
        Events() if events is None else events,
        trigger,
    )
    publisher.start()
    with closing(publisher):
        yield publisher


def feed(journal, numbers, seconds=0.0):
    """Parts, spread over a time."""
    for number in numbers:
        journal.final(part(number, list(Reason)[number % 5]))
        time.sleep(seconds / len(numbers))


def first_seen(ids):
    return list(dict.fromkeys(ids))


# What is published.


def test_parts_events_and_health_are_published_as_documented(broker, subscriber, journal):
    journal.event(Event("camera_lost", "cable pulled", UTC_NS))
    journal.final(part(1))
    journal.final(part(2, Reason.FRAME_MISSING, None))
    with publishing(broker.port, journal):
        until(lambda: len(subscriber.ids()) == 2 and subscriber.of("lineward/press-4/health"))
    passed, missing = (json.loads(payload) for payload in subscriber.of("lineward/press-4/part"))
    assert passed == {
        "id": 1,
        "part": 101,
        "at": "2026-09-21T14:13:21.000+00:00",
        "source": "plc",
        "job": 1,
        "bundle": "ab" * 32,
        "verdict": "pass",
        "reason": "within_threshold",
        "outcome": "passed",
        "score": 0.25,
        "threshold": 0.5,
        "captured_us": 5000,
        "started_us": 6000,
        "decided_us": 16000,
        "told_us": 20000,
        "acknowledged_us": None,
        "calibration": "",
    }
    assert (missing["verdict"], missing["score"], missing["told_us"]) == ("reject", None, None)
    assert json.loads(subscriber.of("lineward/press-4/event")[0]) == {
        "id": 1,
        "at": "2026-09-21T14:13:20.000+00:00",
        "event": "camera_lost",
        "detail": "cable pulled",
    }
    health = json.loads(subscriber.of("lineward/press-4/health")[0])
    assert (health["name"], health["state"], health["counts"]["triggered"]) == ("press-4", "online", 103)


def test_health_is_kept_by_the_broker_and_renewed(broker, subscriber, journal):
    with publishing(broker.port, journal, health_every=Seconds(0.2)):
        until(lambda: len(subscriber.of("lineward/press-4/health")) >= 3)
    with closing(Subscriber(broker.port, "late")) as late:
        until(lambda: late.of("lineward/press-4/health"))


def test_the_topic_can_be_chosen(broker, subscriber, journal):
    journal.final(part(1))
    with publishing(broker.port, journal, topic="lineward/hall 3/press"):
        until(lambda: subscriber.ids("lineward/hall 3/press/part") == [1])


# Nothing is lost, and the order is kept.


def test_a_broker_that_is_away_under_load_gets_everything_afterwards(broker, subscriber, journal):
    events = Events()
    with publishing(broker.port, journal, events):
        feed(journal, range(1, 11))
        until(lambda: len(subscriber.ids()) == 10)
        broker.end()
        feed(journal, range(11, 311), seconds=3.0)
        assert events.has("broker_lost")
        assert events.has("broker_unreachable")
        broker.start()
        until(lambda: len(set(subscriber.ids())) == 310)
    assert first_seen(subscriber.ids()) == list(range(1, 311))
    assert [name for name, _ in events].count("broker_unreachable") == 1  # told once, tried often


def test_a_broker_that_is_killed_under_load_gets_everything_afterwards(broker, subscriber, journal):
    feeder = threading.Thread(target=feed, args=(journal, range(1, 601), 2.0))
    with publishing(broker.port, journal):
        feeder.start()
        for enough in (100, 300):
            until(lambda enough=enough: len(subscriber.ids()) > enough)
            broker.end(signal.SIGKILL)
            broker.start()
        feeder.join()
        until(lambda: set(subscriber.ids()) == set(range(1, 601)), "what")
    assert first_seen(subscriber.ids()) == list(range(1, 601))


def test_a_station_that_is_restarted_under_load_goes_on_where_it_was(broker, subscriber, tmp_path):
    for start in (1, 101, 201):
        with closing(Journal(tmp_path, "press-4")) as journal, publishing(broker.port, journal):
            feed(journal, range(start, start + 100), seconds=0.3)
    with closing(Journal(tmp_path, "press-4")) as journal, publishing(broker.port, journal):
        until(lambda: len(set(subscriber.ids())) == 300)
    assert first_seen(subscriber.ids()) == list(range(1, 301))
    assert len(subscriber.ids()) <= 300 + 3 * WINDOW


def test_what_was_acknowledged_is_remembered(broker, subscriber, journal):
    feed(journal, range(1, 51))
    journal.event(Event("camera_lost", "", UTC_NS))
    with publishing(broker.port, journal), closing(JournalReader(journal.path)) as reader:
        until(lambda: (reader.forwarded.parts, reader.forwarded.events) == (50, 1))
    with publishing(broker.port, journal):
        journal.final(part(51))
        until(lambda: 51 in subscriber.ids())
    assert subscriber.ids() == list(range(1, 52))


def test_closing_forwards_what_is_journalled(broker, subscriber, journal):
    with publishing(broker.port, journal):
        until(lambda: subscriber.of("lineward/press-4/online"))
        feed(journal, range(1, 201))
        assert journal.flush(PATIENCE)
    assert first_seen(subscriber.ids())[:1] == [1]
    until(lambda: len(subscriber.ids()) == 200)


def test_a_broker_that_hangs_does_not_hold_up_the_end(broker, subscriber, journal):
    publisher = MqttPublisher(
        Mqtt(host="127.0.0.1", port=broker.port), "press-4", journal, lambda: report(status(), RecentParts()), Events()
    )
    publisher.start()
    until(lambda: subscriber.of("lineward/press-4/online"))
    broker.send(signal.SIGSTOP)
    feed(journal, range(1, 301))
    began = time.monotonic()
    publisher.close()
    assert time.monotonic() - began < 9
    assert not publisher._thread.is_alive()
    broker.send(signal.SIGCONT)
    with publishing(broker.port, journal):
        until(lambda: len(set(subscriber.ids())) == 300)
    assert first_seen(subscriber.ids()) == list(range(1, 301))


def test_a_new_journal_is_forwarded_from_its_beginning(broker, subscriber, journal):
    """A damaged journal was replaced: what was forwarded of the old one means nothing in the new one."""
    journal.forward(parts=5000, events=70)
    feed(journal, range(1, 31))
    journal.event(Event("journal_damaged", "", UTC_NS))
    assert journal.flush(PATIENCE)
    with publishing(broker.port, journal):
        until(lambda: len(set(subscriber.ids())) == 30 and subscriber.of("lineward/press-4/event"))
    assert subscriber.ids() == list(range(1, 31))


def test_a_journal_that_is_taken_away_meanwhile_is_followed(broker, subscriber, journal):
    with publishing(broker.port, journal):
        feed(journal, range(1, 31))
        until(lambda: len(subscriber.ids()) == 30)
        for file in journal.path.parent.glob(f"{journal.path.name}*"):
            file.unlink(missing_ok=True)  # SQLite may be tidying up
        feed(journal, range(31, 61), seconds=0.5)
        until(lambda: len(set(subscriber.ids())) == 60)
    assert first_seen(subscriber.ids()) == list(range(1, 61))


def test_no_more_than_a_window_awaits_acknowledgement(journal):
    """A broker that takes and never acknowledges gets a window's messages and no more, parts after events."""
    feed(journal, range(1, 1001))
    for _ in range(20):
        journal.event(Event("camera_lost", "", UTC_NS))
    assert journal.flush(PATIENCE)
    sent = []

    def publish(topic, _payload):
        message = SimpleNamespace(topic=topic, published=False)
        message.is_published = lambda: message.published
        sent.append(message)
        return message

    with closing(JournalReader(journal.path)) as reader:
        forwarding = mqtt._Forwarding(reader, journal, SimpleNamespace(publish=publish))
        for _ in range(5):
            forwarding.advance()
        assert [message.topic for message in sent] == ["event"] * 20 + ["part"] * (WINDOW - 20)

        for message in sent[1:]:
            message.published = True
        forwarding.advance()
        assert len(sent) == WINDOW
        assert journal.flush(PATIENCE)
        assert reader.forwarded.events == 0  # the first is not acknowledged: nothing after it counts

        sent[0].published = True
        forwarding.advance()
        assert journal.flush(PATIENCE)
        assert (reader.forwarded.parts, reader.forwarded.events) == (WINDOW - 20, 20)
        assert len(sent) == 2 * WINDOW


# Whether the station is there.


def test_online_and_offline_are_kept_by_the_broker(broker, subscriber, journal):
    with publishing(broker.port, journal):
        until(lambda: subscriber.of("lineward/press-4/online") == [b"online"])
        with closing(Subscriber(broker.port, "late")) as late:
            until(lambda: late.of("lineward/press-4/online") == [b"online"])
    until(lambda: subscriber.of("lineward/press-4/online") == [b"online", b"offline"])
    with closing(Subscriber(broker.port, "later")) as later:
        until(lambda: later.of("lineward/press-4/online") == [b"offline"])


def test_the_broker_tells_that_a_killed_station_is_offline(broker, subscriber, tmp_path):
    code = f"""
        import time
        from pathlib import Path
        from lineward.runtime.station.configuration import Mqtt
        from lineward.runtime.station.journal import Journal
        from lineward.runtime.station.mqtt import MqttPublisher

        journal = Journal(Path({str(tmp_path)!r}), "press-4")
        table = Mqtt(host="127.0.0.1", port={broker.port})
        MqttPublisher(table, "press-4", journal, lambda: None, lambda *_: None).start()
        time.sleep({PATIENCE})
    """
    process = subprocess.Popen([sys.executable, "-c", textwrap.dedent(code)])
    try:
        until(lambda: subscriber.of("lineward/press-4/online") == [b"online"])
    finally:
        process.kill()
        process.wait(PATIENCE)
    until(lambda: subscriber.of("lineward/press-4/online") == [b"online", b"offline"])


# Triggers.


def test_messages_are_triggers(broker, subscriber, journal):
    events, parts = Events(), []
    with publishing(broker.port, journal, events, parts.append):
        until(lambda: events.has("broker_connected"))
        for payload in (
            "",
            "17",
            '{"part": 18}',
            "{}",
            " 19 ",
            "seventeen",
            '{"part": -1}',
            "true",
            "4294967296",
            "20",
        ):
            subscriber.publish("lineward/press-4/trigger", payload)
        until(lambda: 20 in parts)
    assert parts == [0, 17, 18, 0, 19, 20]
    assert [name for name, _ in events].count("trigger_malformed") == 4
    assert "seventeen" in next(detail for name, detail in events if name == "trigger_malformed")


def test_an_old_trigger_fires_no_camera(broker, subscriber, journal):
    events, parts = Events(), []
    subscriber.publish("lineward/press-4/trigger", "1", retain=True)
    with publishing(broker.port, journal, events, parts.append):
        until(lambda: events.has("trigger_refused"))
    subscriber.publish("lineward/press-4/trigger", "2")  # nobody is there
    subscriber.publish("lineward/press-4/trigger", "", retain=True)
    with publishing(broker.port, journal, events, parts.append):
        until(lambda: [name for name, _ in events].count("broker_connected") == 2)
        subscriber.publish("lineward/press-4/trigger", "3")
        until(lambda: 3 in parts)
    assert parts == [3]


@pytest.mark.parametrize("flag", ["retain", "dup"])
def test_a_repeated_message_is_no_trigger(journal, flag):
    events, parts = Events(), []
    publisher = MqttPublisher(Mqtt(host="x"), "press-4", journal, lambda: None, events, parts.append)
    message = SimpleNamespace(payload=b"1", retain=False, dup=False)
    publisher._take_trigger(message)
    setattr(message, flag, True)
    publisher._take_trigger(message)
    assert parts == [1]
    assert [name for name, _ in events] == ["trigger_refused"]


def test_without_triggers_nothing_is_subscribed_to(broker, subscriber, journal):
    events = Events()
    with publishing(broker.port, journal, events):
        until(lambda: events.has("broker_connected"))
        subscriber.publish("lineward/press-4/trigger", "nonsense")
        journal.final(part(1))
        until(lambda: subscriber.ids() == [1])
    assert not events.has("trigger_malformed")


@given(st.binary(max_size=40))
def test_any_payload_is_a_number_or_an_error(payload):
    try:
        assert 0 <= part_of(payload) < 2**32
    except msgspec.MsgspecError:
        assert payload.strip()


@given(st.integers(0, 2**32 - 1))
def test_every_number_comes_back(number):
    assert part_of(b"%d" % number) == part_of(b'{"part": %d}' % number) == number


# Credentials.


def test_a_password_that_is_made_good_is_taken(tmp_path, journal):
    passwords = tmp_path / "passwords"
    program = shutil.which("mosquitto_passwd")
    if program is None:
        pytest.skip("mosquitto_passwd is not installed")
    subprocess.run([program, "-c", "-b", passwords, "press", "secret"], check=True, capture_output=True)
    broker, events, password = (
        Broker(tmp_path, "allow_anonymous false", f"password_file {passwords}"),
        Events(),
        tmp_path / "pw",
    )
    password.write_text("wrong\n")
    broker.start()
    try:
        journal.final(part(1))
        with (
            closing(Subscriber(broker.port, username="press", password="secret")) as subscriber,
            publishing(broker.port, journal, events, username="press", password_file=password),
        ):
            until(lambda: events.has("broker_refused"))
            time.sleep(0.5)
            assert not events.has("broker_connected")
            assert [name for name, _ in events] == ["broker_refused"]
            assert "Not authorized" in events[0][1]
            password.write_text("secret\n")
            until(lambda: subscriber.ids() == [1])
    finally:
        broker.end(signal.SIGKILL)


def test_a_subscription_that_is_refused_is_said(journal):
    """mosquitto refuses none with an access file alone, so this broker speaks just enough to do it."""

    def refuse(server):
        with server.accept()[0] as peer:
            peer.recv(1000)
            peer.sendall(b"\x20\x02\x00\x00")  # CONNACK: accepted
            subscribe = peer.recv(1000)
            peer.sendall(b"\x90\x03" + subscribe[2:4] + b"\x80")  # SUBACK: failure
            peer.settimeout(PATIENCE)
            while peer.recv(1000):
                pass

    events = Events()
    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=refuse, args=(server,))
        thread.start()
        with publishing(server.getsockname()[1], journal, events, lambda _: pytest.fail("no trigger was sent")):
            until(lambda: events.has("broker_refused"))
        thread.join(PATIENCE)
    assert not events.has("broker_connected")
    assert "lineward/press-4/trigger may not be subscribed to" in events[0][1]


def test_what_listens_but_is_no_broker_is_said(journal, monkeypatch):
    monkeypatch.setattr("lineward.runtime.station.mqtt_connection._ANSWER_WITHIN", 0.3)
    events = Events()
    with socket.create_server(("127.0.0.1", 0)) as server, publishing(server.getsockname()[1], journal, events):
        until(lambda: events.has("broker_unreachable"))
    assert "does not answer" in events[0][1]


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Two authorities, and a certificate of the first for 127.0.0.1."""
    folder = tmp_path_factory.mktemp("certificates")
    now = datetime.datetime.now(datetime.timezone.utc)

    def make(name, issuer=None):
        key, subject = (
            ec.generate_private_key(ec.SECP256R1()),
            x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]),
        )
        above, signer = issuer or (subject, key)
        usage = x509.KeyUsage(True, False, False, False, False, issuer is None, issuer is None, False, False)
        certificate = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(above)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(days=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(issuer is None, None), critical=True)
            .add_extension(usage, critical=True)
            .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
            .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
            .add_extension(
                x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False
            )
            .sign(signer, hashes.SHA256())
        )
        (folder / f"{name}.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        plain = serialization.NoEncryption()
        private = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
        (folder / f"{name}.key").write_bytes(private)
        return subject, key

    make("broker", make("authority"))
    make("stranger")
    return folder


def test_tls_trusts_the_given_authority_alone(tmp_path, journal, certificates):
    broker = Broker(tmp_path, f"certfile {certificates}/broker.pem", f"keyfile {certificates}/broker.key")
    broker.start()
    try:
        journal.final(part(1))
        events = Events()
        with publishing(broker.port, journal, events, ca_file=certificates / "stranger.pem"):
            until(lambda: events.has("broker_refused"))
        assert "certificate" in events[0][1]
        with (
            publishing(broker.port, journal, ca_file=certificates / "authority.pem"),
            closing(JournalReader(journal.path)) as reader,
        ):
            until(lambda: reader.forwarded.parts == 1)
    finally:
        broker.end(signal.SIGKILL)


@pytest.mark.parametrize(
    ("table", "what"),
    [
        ({"username": "press", "password_file": "missing"}, "password_file .*missing: cannot be read"),
        ({"password_file": "missing"}, "no username"),
        ({"ca_file": "missing"}, "ca_file .*missing"),
        ({"ca_file": "empty"}, "ca_file .*empty"),
    ],
)
def test_files_that_cannot_be_read_are_errors_at_the_start(tmp_path, journal, table, what):
    (tmp_path / "empty").touch()
    paths = {key: tmp_path / name if key.endswith("file") else name for key, name in table.items()}
    with pytest.raises(StationError, match=what):
        MqttPublisher(Mqtt(host="x", **paths), "press-4", journal, lambda: None, Events())
