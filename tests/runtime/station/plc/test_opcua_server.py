from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("asyncua", reason="asyncua is not installed")

from asyncua import ua
from asyncua.sync import Client, SyncNode

from lineward.runtime.errors import StationError
from lineward.runtime.inspection import Reason
from lineward.runtime.station.configuration import OpcuaServer
from lineward.runtime.station.plc.handshake import ControlBit, StatusBit, Terms
from lineward.runtime.station.plc.opcua_server import NAMESPACE, camel
from lineward.runtime.station.plc.wire import open_wire
from tests.runtime.station.plc.stand_ins import MS, Desk, control, free_port, until

HOST = "127.0.0.1"
PATIENT = Terms(60_000 * MS, acknowledge_within_ns=60_000 * MS)


class Served:
    """An OPC UA wire of a desk."""

    def __init__(self, terms: Terms = PATIENT) -> None:
        self.desk = Desk(terms)
        self.events: list[str] = []
        self.endpoint = f"opc.tcp://{HOST}:{free_port()}/lineward"
        table = OpcuaServer(endpoint=self.endpoint)
        self.wire = open_wire(table, self.desk.handshake, lambda name, _: self.events.append(name))


class Plc:
    """A PLC that is an OPC UA client."""

    def __init__(self, client: Client) -> None:
        self.client = client
        self.space = client.get_namespace_index(NAMESPACE)

    def node(self, name: str) -> SyncNode:
        return self.client.get_node(f"ns={self.space};s={name}")

    def read(self, *names: str) -> list[Any]:
        values: list[Any] = self.client.read_values([self.node(f"Status.{name}") for name in names])
        return values

    def write(self, **words: bool | int) -> None:
        """Write control nodes, in one request."""
        values = [ua.DataValue(ua.Variant(word, CONTROL_TYPES.get(name, BOOL))) for name, word in words.items()]
        self.client.write_values([self.node(f"Control.{name}") for name in words], values)

    @property
    def verdict(self) -> tuple[bool, bool, bool]:
        """ResultsValid, Pass and Reject, in one request."""
        valid, good, bad = self.read("ResultsValid", "Pass", "Reject")
        return valid, good, bad


BOOL = ua.VariantType.Boolean
CONTROL_TYPES = {"Job": ua.VariantType.UInt16, "Part": ua.VariantType.UInt32, "Heartbeat": ua.VariantType.UInt16}


@pytest.fixture(scope="module")
def shared() -> Iterator[Served]:
    """Starting one takes a second: the tests that leave nothing behind share it."""
    served = Served()
    served.wire.start()
    yield served
    served.wire.close()


@pytest.fixture
def served(shared: Served) -> Iterator[Served]:
    yield shared
    shared.desk.handshake.control(control("RESULTS_ACK"))
    shared.desk.handshake.control(control())


@pytest.fixture
def plc(served: Served) -> Iterator[Plc]:
    with Client(served.endpoint, timeout=20) as client:
        plc = Plc(client)
        yield plc
        plc.write(**{camel(bit): False for bit in ControlBit})


def test_the_words_are_named_as_in_the_registers(plc: Plc) -> None:
    station = plc.node("Station")
    folders = {folder.read_browse_name().Name: folder for folder in station.get_children()}
    names = {name: [node.read_browse_name().Name for node in folder.get_children()] for name, folder in folders.items()}
    assert names["Control"] == [
        *("TriggerEnable", "Trigger", "ResultsAck", "JobChange", "ClearError"),
        *("Job", "Part", "Heartbeat"),
    ]
    assert {"TriggerReady", "ResultsValid", "InspectionId", "Score", "MapVersion"} < set(names["Status"])
    assert {camel(bit) for bit in StatusBit} < set(names["Status"])
    assert names["Status"][-1] == "ResultsValid"


def test_trigger_result_and_acknowledgement(served: Served, plc: Plc) -> None:
    before = len(served.desk.line.announced)
    plc.write(Part=70_000, TriggerEnable=True, Trigger=True)
    trigger = served.desk.line.announced[before]
    assert trigger.part == 70_000
    assert plc.read("TriggerAck", "AcquisitionId") == [True, trigger.id]
    plc.write(Trigger=False)
    assert plc.read("TriggerAck") == [False]
    served.desk.tell(True, trigger)
    until(lambda: plc.verdict == (True, True, False))
    words = plc.read("InspectionId", "Part", "Score", "Threshold", "Reason", "MapVersion", "Job")
    assert words == [trigger.id, 70_000, 0.25, 0.5, 1, 1, 1]
    plc.write(ResultsAck=True)
    assert served.desk.line.final_reasons[trigger.id] is Reason.WITHIN_THRESHOLD
    assert plc.verdict == (False, True, False)


def test_one_write_request_is_taken_as_a_whole_whatever_its_order(served: Served, plc: Plc) -> None:
    plc.write(Trigger=True, TriggerEnable=True, Part=4711)
    assert served.desk.line.announced[-1].part == 4711
    served.desk.tell(False, served.desk.line.announced[-1])
    plc.write(ResultsAck=True)


def test_a_subscriber_who_sees_a_result_has_the_rest_of_it(served: Served, plc: Plc) -> None:
    rounds = 10
    heard: dict[str, Any] = {}
    results: list[tuple[int, bool, float]] = []
    fresh = threading.Semaphore(0)

    class Subscriber:
        def datachange_notification(self, node: SyncNode, value: Any, _: Any) -> None:
            name = str(node.nodeid.Identifier).split(".")[1]
            heard[name] = value
            if name == "ResultsValid" and value:
                asyncio.get_running_loop().call_soon(self.look)  # once the whole notification was taken

        def look(self) -> None:
            results.append((heard["InspectionId"], heard["Pass"], heard["Score"]))
            fresh.release()

    subscription = plc.client.create_subscription(10, Subscriber())
    names = ("InspectionId", "Pass", "Score", "ResultsValid")
    subscription.subscribe_data_change([plc.node(f"Status.{name}") for name in names])
    expected = []
    for number in range(rounds):
        trigger = served.desk.tell(number % 2 == 0, score=number / 16)
        expected.append((trigger.id, number % 2 == 0, number / 16))
        assert fresh.acquire(timeout=20)
        plc.write(ResultsAck=True)
        plc.write(ResultsAck=False)
    subscription.delete()
    assert results == expected


def test_every_read_request_shows_one_state_while_results_are_told() -> None:
    served = Served(Terms(60_000 * MS, acknowledge=False))
    served.wire.start()
    over = threading.Event()

    def tell() -> None:
        for number in range(1, 401):
            served.desk.tell(number % 3 == 0, score=number / 512)
            time.sleep(0.002)
        over.set()

    teller = threading.Thread(target=tell)
    numbers = set[int]()
    try:
        with Client(served.endpoint, timeout=20) as client:
            plc = Plc(client)
            teller.start()
            while not over.is_set() or plc.read("InspectionId") != [400]:
                number, good, bad, score = plc.read("InspectionId", "Pass", "Reject", "Score")
                if number:
                    numbers.add(number)
                    assert (good, bad, score) == (number % 3 == 0, number % 3 != 0, number / 512)
    finally:
        teller.join()
        served.wire.close()
    assert len(numbers) > 10


def test_a_result_that_is_acknowledged_too_late_reads_as_reject() -> None:
    served = Served(Terms(60_000 * MS, acknowledge_within_ns=50 * MS))
    served.wire.start()
    try:
        with Client(served.endpoint, timeout=20) as client:
            plc = Plc(client)
            served.desk.tell(True)
            until(lambda: plc.verdict == (True, True, False))
            time.sleep(0.1)
            plc.write(ResultsAck=True)
            assert plc.verdict == (False, False, True)
            assert served.desk.line.final_reasons == {1: Reason.NOT_ACKNOWLEDGED}
    finally:
        served.wire.close()


def test_a_plc_that_vanishes_goes_on_after_it_is_back(served: Served) -> None:
    with Client(served.endpoint, timeout=20) as client:
        trigger = served.desk.tell(True)
        until(lambda: Plc(client).verdict == (True, True, False))
        transport = client.aio_obj.uaclient.protocol.transport
        client.tloop.loop.call_soon_threadsafe(transport.abort)
    with Client(served.endpoint, timeout=20) as client:
        plc = Plc(client)
        assert plc.verdict == (True, True, False)
        plc.write(ResultsAck=True)
        assert plc.verdict == (False, True, False)
        plc.write(ResultsAck=False)
    assert served.desk.line.final_reasons[trigger.id] is Reason.WITHIN_THRESHOLD


@pytest.mark.parametrize("name", ["Status.Pass", "Status.ResultsValid", "Status.Heartbeat"])
def test_the_status_cannot_be_written(plc: Plc, name: str) -> None:
    with pytest.raises(ua.UaStatusCodeError, match=r"not.*(permission|writ)|denied"):
        plc.node(name).write_value(plc.node(name).read_value())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("Job", ua.Variant(1, ua.VariantType.Int64)),
        ("Trigger", ua.Variant(1, ua.VariantType.UInt16)),
        ("Trigger", ua.Variant("yes", ua.VariantType.String)),
    ],
)
def test_a_word_of_another_type_is_refused(served: Served, plc: Plc, name: str, value: ua.Variant) -> None:
    before = served.desk.handshake.status().missed
    with pytest.raises(ua.UaStatusCodeError):
        plc.node(f"Control.{name}").write_value(ua.DataValue(value))
    assert served.desk.handshake.status().missed == before


def test_a_node_that_a_client_empties_is_down(plc: Plc) -> None:
    plc.write(TriggerEnable=True)
    assert plc.read("TriggerReady") == [True]
    plc.node("Control.TriggerEnable").write_value(
        ua.DataValue(ua.Variant(True, BOOL), ua.StatusCode(ua.StatusCodes.BadOutOfService))
    )
    assert plc.read("TriggerReady") == [False]


def test_whoever_calls_himself_admin_may_no_more_than_others(served: Served) -> None:
    client = Client(served.endpoint, timeout=20)
    client.set_user("admin")
    client.set_password("")
    with client:
        plc = Plc(client)
        with pytest.raises(ua.UaStatusCodeError):
            plc.node("Status.Pass").write_value(True)
        with pytest.raises(ua.UaStatusCodeError):
            plc.client.get_objects_node().add_variable(plc.space, "Mine", 1)


def test_clients_add_no_nodes(plc: Plc) -> None:
    with pytest.raises(ua.UaStatusCodeError):
        plc.client.get_objects_node().add_variable(plc.space, "Mine", 1)


def test_the_heartbeat_counts_up(plc: Plc) -> None:
    (first,) = plc.read("Heartbeat")
    until(lambda: (plc.read("Heartbeat")[0] - first) & 0xFFFF >= 2)


def test_a_plc_is_missed_when_it_is_gone() -> None:
    served = Served()
    served.wire.start()
    try:
        assert not served.wire.connected
        with Client(served.endpoint, timeout=20):
            until(lambda: served.wire.connected)
            time.sleep(2.2)  # a PLC that only listens is there, too
            assert served.wire.connected
        until(lambda: not served.wire.connected)
        assert served.events[-1:] == ["plc_lost"]
        with Client(served.endpoint, timeout=20):
            until(lambda: served.wire.connected)
        assert served.events[-2:] == ["plc_lost", "plc_back"]
    finally:
        served.wire.close()


@pytest.mark.parametrize("endpoint", ["", "opc.tcp://", "http://127.0.0.1:4840/", "opc.tcp://127.0.0.1:x/", "4840"])
def test_an_endpoint_that_is_none_is_an_error(endpoint: str) -> None:
    with pytest.raises(StationError, match="endpoint"):
        open_wire(OpcuaServer(endpoint=endpoint), Desk(PATIENT).handshake, lambda *_: None)


def test_a_port_that_is_taken_is_an_error_that_says_so() -> None:
    with socket.create_server((HOST, 0)) as taken:
        port = taken.getsockname()[1]
        table = OpcuaServer(endpoint=f"opc.tcp://{HOST}:{port}/lineward")
        wire = open_wire(table, Desk(PATIENT).handshake, lambda *_: None)
        with pytest.raises(StationError, match=f"cannot listen on {HOST}:{port}"):
            wire.start()
