"""What slots remember, what they go back to, and what they make of damage."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lineward.runtime.delivery.slot_state import KEPT, Slot, SlotState, decode_state, encode_record
from lineward.runtime.delivery.slots import ACTIVE, BEFORE, NEWEST, Slots, is_slots
from lineward.runtime.errors import BundleError, DeliveryError
from tests.runtime.delivery.offers import Desk, bundle


@pytest.fixture
def desk(tmp_path):
    return Desk(tmp_path)


def test_nothing_is_there_yet(desk):
    assert desk.slots.read() == SlotState()
    assert not desk.slots.folder.exists()
    with pytest.raises(DeliveryError, match="no bundle before"):
        desk.slots.go_back("")


def test_the_last_good_ones_are_kept_and_the_others_cleared_away(desk):
    for number in range(1, 8):
        desk.deploy(bundle(number))
    state = desk.slots.read()
    assert state.active.version == 7
    assert [slot.version for slot in state.before] == [6, 5, 4]
    assert len(state.before) == KEPT
    files = {path.name for path in desk.slots.folder.glob("*.lineward")}
    assert {slot.file for slot in state.kept} <= files
    assert len(files) <= KEPT + 3  # those of the state before, too, until the next deployment
    assert not list(desk.slots.folder.glob("*.partial"))


def test_back_and_back_again(desk):
    for number in (1, 2, 3):
        desk.deploy(bundle(number))
    assert desk.slots.go_back("why not").active.version == 2
    assert desk.slots.go_back("").active.version == 1
    with pytest.raises(DeliveryError, match="no bundle before"):
        desk.slots.go_back("")
    assert desk.active == 1
    last = [(entry.change, entry.version, entry.why) for entry in desk.slots.read().history]
    assert last[-2:] == [("rolled back", 2, "why not"), ("rolled back", 1, "")]


def test_what_proved_bad_is_taken_back_and_not_gone_back_to(desk):
    states = [desk.deploy(bundle(number)) for number in (1, 2, 3)]
    state = desk.slots.refuse(states[1].active.sha256, "bad")
    assert (state.active.version, [slot.version for slot in state.before]) == (3, [1])
    state = desk.slots.refuse(states[2].active.sha256, "bad too")
    assert (state.active.version, state.before) == (1, ())
    assert [(refused.version, refused.why) for refused in state.refused] == [(2, "bad"), (3, "bad too")]
    with pytest.raises(DeliveryError, match="none before it"):
        desk.slots.refuse(states[0].active.sha256, "bad as well")
    assert desk.active == 1
    assert [refused.version for refused in desk.deploy(bundle(3)).refused] == [2]


def test_the_first_is_proven_and_the_next_must_prove_itself(desk):
    assert desk.deploy(bundle(1)).active.proven
    state = desk.deploy(bundle(2))
    assert not state.active.proven
    state = desk.slots.change(lambda s: s.proving(state.active.sha256))
    assert state.active.proven
    assert desk.deploy(bundle(2)).active.proven


def damage(slots, *names):
    for name in names:
        data = (slots.folder / name).read_bytes()
        (slots.folder / name).write_bytes(data[: len(data) // 2])


def test_active_is_damaged(desk):
    """Then what was before it holds, and nothing older comes in for it."""
    for number in (1, 2, 3):
        desk.deploy(bundle(number))
    damage(desk.slots, ACTIVE)
    assert desk.active == 2
    with pytest.raises(DeliveryError, match="version 2 is older than 3"):
        desk.deploy(bundle(2))
    assert desk.deploy(bundle(3)).active.version == 3
    assert desk.active == 3


@pytest.mark.parametrize("lost", [(NEWEST,), (BEFORE,), (NEWEST, BEFORE), (ACTIVE,)])
def test_a_lost_file_does_not_open_the_door(desk, lost):
    for number in (4, 5):
        desk.deploy(bundle(number))
    for name in lost:
        (desk.slots.folder / name).unlink()
    with pytest.raises(DeliveryError, match="version 3 is older than"):
        desk.deploy(bundle(3))
    assert desk.active == (4 if ACTIVE in lost else 5)


@pytest.mark.parametrize("newest", ["whole", "damaged", "lost"])
def test_active_and_what_was_before_it_are_damaged(desk, newest):
    for number in (4, 5):
        desk.deploy(bundle(number))
    damage(desk.slots, ACTIVE, BEFORE, *([NEWEST] if newest == "damaged" else []))
    if newest == "lost":
        (desk.slots.folder / NEWEST).unlink()
    for use in (desk.slots.read, lambda: desk.deploy(bundle(9)), lambda: desk.slots.go_back("")):
        with pytest.raises(DeliveryError, match="nobody can tell what was active"):
            use()
    state = desk.slots.mend(desk.trust)
    assert state.active is None
    assert state.product == "tiny part"
    with pytest.raises(DeliveryError, match="version 4 is older than 5"):
        desk.deploy(bundle(4))
    assert desk.deploy(bundle(5)).active.version == 5


def test_all_files_but_the_bundles_are_lost(desk):
    desk.deploy(bundle(5))
    for name in (ACTIVE, BEFORE, NEWEST):
        (desk.slots.folder / name).unlink(missing_ok=True)
    with pytest.raises(DeliveryError, match="nobody can tell"):
        desk.deploy(bundle(4))


def test_nothing_is_left_to_mend_from(desk):
    desk.deploy(bundle(5))
    for path in desk.slots.folder.iterdir():
        path.write_bytes(b"rot")
    with pytest.raises(DeliveryError, match="no whole bundle"):
        desk.slots.mend(desk.trust)


def test_another_bundle_in_a_slots_place(desk):
    """An older one with a good signature, put there by hand."""
    state = desk.deploy(bundle(2))
    desk.slots.path(state.active).write_bytes(bundle(1))
    with pytest.raises(BundleError, match="not the bundle that was deployed"):
        desk.slots.bundle(state.active, desk.trust)


def test_two_deploy_at_once(desk):
    desk.deploy(bundle(1))
    with desk.slots.deploying(), pytest.raises(DeliveryError, match="another deployment is under way"):
        desk.deploy(bundle(2))
    assert desk.active == 1


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    desk = Desk(tmp_path)
    desk.slots = Slots(tmp_path / "file" / "slots")
    with pytest.raises(DeliveryError, match="cannot be written"):
        desk.deploy(bundle(1))


@pytest.mark.parametrize(
    ("name", "slots"), [("a", True), ("a.lineward", False), ("folder.lineward", True), ("file", False)]
)
def test_a_jobs_path_names_slots_or_a_bundle(tmp_path, name, slots):
    (tmp_path / "folder.lineward").mkdir()
    (tmp_path / "file").write_text("")
    assert is_slots(tmp_path / name) is slots


# ---- Invariants ----------------------------------------------------------------------------------------

STEPS = st.lists(st.tuples(st.sampled_from(["deploy", "back", "refuse", "prove"]), st.integers(1, 6)), max_size=30)


@settings(deadline=None, max_examples=200)
@given(steps=STEPS)
def test_whatever_happens_in_whatever_order(steps):
    state, clock = SlotState(), itertools.count()
    highest = 0
    for step, number in steps:
        sha256 = f"{number:064x}"
        if step == "deploy":
            state = state.deployed("p", Slot(number, sha256), ("k",), str(next(clock)), "")
            highest = max(highest, number)
        elif step == "back" and state.before:
            state = state.back_to(state.before[0], "rolled back", str(next(clock)), "")
        elif step == "refuse" and len(state.kept) > 1:
            bad = state.active
            state = state.refusing(bad, str(next(clock)), "")
            state = state.back_to(state.before[0], "taken back", str(next(clock)), "")
            assert bad.sha256 not in {slot.sha256 for slot in state.kept}
        else:
            state = state.proving(sha256)
        shas = [slot.sha256 for slot in state.kept]
        assert len(shas) == len(set(shas))
        assert len(state.before) <= KEPT
        assert not set(shas) & {refused.sha256 for refused in state.refused}
        assert [entry.version for entry in state.newest] == ([highest] if highest else [])
        assert (state.active is None) == (not state.history)
        assert decode_state(encode_record(state)) == state


@given(place=st.integers(0, 10**6), bit=st.integers(0, 7), cut=st.booleans())
def test_half_a_state_or_a_flipped_bit_is_no_state(place, bit, cut):
    data = bytearray(encode_record(SlotState("p", Slot(1, "0" * 64))))
    place %= len(data)
    if cut:
        data = data[:place]
    else:
        data[place] ^= 1 << bit
    with pytest.raises(ValueError, match=r".*"):
        decode_state(bytes(data))
