"""The slots of one product: a folder of bundles, and a file that says which of them is active.

The file `active` holds everything that may change (see `slot_state`) and is replaced by one rename, after the bundle it
names has reached the disk. `active.before` is the one it replaced, and `newest` a second copy of the downgrade
protection: for the day when the disk damages `active`.
"""

from __future__ import annotations

import fcntl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypeVar

import msgspec

from lineward.runtime.atomic_write import replace_file, sync_folder
from lineward.runtime.bundle import Bundle, read_bundle
from lineward.runtime.delivery.lock import ALONE, held, open_lock
from lineward.runtime.delivery.slot_state import (
    STATE_LIMIT,
    Newest,
    Slot,
    SlotState,
    decode_newest,
    decode_state,
    encode_record,
    merge_newest,
)
from lineward.runtime.errors import BundleError, DeliveryError
from lineward.runtime.signature import format_time
from lineward.runtime.trust import Trust, TrustedKeys

ACTIVE = "active"
BEFORE = "active.before"
NEWEST = "newest"
BUNDLE_SUFFIX = ".lineward"

_LOCK = ".lock"
_DEPLOYING = ".deploying"
_Decoded = TypeVar("_Decoded")


def is_slots(path: Path) -> bool:
    """Whether a job's path in a station file names slots, not the file of a bundle."""
    return path.is_dir() or (path.suffix != BUNDLE_SUFFIX and not path.exists())


def now() -> str:
    """This moment, as `HistoryEntry.time`."""
    return format_time(datetime.now(timezone.utc))


class Slots:
    """The slots in a folder, which need not be there yet. Several processes may use them at once.

    Raises (every method):
        DeliveryError: they are damaged beyond what can be relied upon, or cannot be read or written.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    # Reading: takes no lock, since each file is replaced as a whole.

    def read(self) -> SlotState:
        """What is active and what was; an empty state where nothing was ever deployed."""
        states = [self._decode(name, decode_state) for name in (ACTIVE, BEFORE)]
        state = states[0] or states[1]
        newest = self._decode(NEWEST, decode_newest) or ()
        if state is not None:
            return msgspec.structs.replace(state, newest=merge_newest(state.newest, newest))
        if self._left_behind():
            raise DeliveryError(
                f"{self.folder}: {ACTIVE} and {BEFORE} are missing or damaged, so that nobody can tell what was active",
                do="`lineward slots STATION_FILE --mend` finds out what can be relied upon; then deploy a bundle",
            )
        return SlotState()

    @property
    def damage(self) -> str | None:
        """What to tell people where `read` goes by the state before the last change; None where all is well."""
        if self._decode(ACTIVE, decode_state) is not None or self._decode(BEFORE, decode_state) is None:
            return None
        return f"{self.folder / ACTIVE} is missing or damaged: what holds is what was before the last change"

    def path(self, slot: Slot) -> Path:
        """The file of a slot's bundle."""
        return self.folder / slot.file

    def bundle(self, slot: Slot, trust: Trust) -> Bundle:
        """Read a slot's bundle, and check that it is the very one that was deployed.

        Raises:
            BundleError: it is missing, damaged, not trusted, or another one lies in its place.
        """
        bundle = read_bundle(self.path(slot), trust)
        if not slot.is_of(bundle.sha256):
            raise BundleError(
                f"{self.path(slot)}: not the bundle that was deployed there (its manifest has another SHA-256)",
                do="deploy bundles with `lineward deploy`; never copy them into the slots",
            )
        return bundle

    # Writing.

    @contextmanager
    def deploying(self) -> Iterator[None]:
        """While a bundle is staged; nobody else may, and nothing is cleared away meanwhile."""
        with self._locked(_DEPLOYING, ALONE):
            yield

    def put(self, name: str, data: bytes) -> Path:
        """Write a file into the folder, through to the disk."""
        with self._writing():
            replace_file(self.folder / name, data)
        return self.folder / name

    def adopt(self, staged: Path, slot: Slot) -> None:
        """Give a staged bundle its place, through to the disk."""
        with self._writing():
            staged.replace(self.path(slot))
            sync_folder(self.folder)

    def change(self, change: Callable[[SlotState], SlotState]) -> SlotState:
        """Change what is active, in one step: whenever the power goes, all of the change is there or none of it."""
        with self._locked(_LOCK, fcntl.LOCK_EX):
            old = self.read()
            new = change(old)
            if new != old or self._decode(ACTIVE, decode_state) is None:
                self._write(new)
            return new

    def go_back(self, why: str, is_good: Callable[[Slot], bool] = lambda _: True) -> SlotState:
        """Make the latest good bundle before the active one active again, at someone's wish. It may be older: it was
        active.
        """

        def back(state: SlotState) -> SlotState:
            slot = next((slot for slot in state.before if is_good(slot)), None)
            if slot is None:
                raise DeliveryError(
                    f"{self.folder}: there is no bundle before the active one", do="deploy the bundle that you want"
                )
            return state.back_to(slot, "rolled back", now(), why)

        return self.change(back)

    def refuse(self, sha256: str, why: str, is_good: Callable[[Slot], bool] = lambda _: True) -> SlotState:
        """Take a bundle back that proved bad: the latest good one before it becomes active, and it is not gone back to.

        Raises:
            DeliveryError: also where there is nothing before it.
        """

        def refusal(state: SlotState) -> SlotState:
            slot = next((s for s in state.kept if s.is_of(sha256)), None)
            if slot is None:
                return state
            new = state.refusing(slot, now(), why)
            if slot != state.active:
                return new
            good = next((slot for slot in new.before if is_good(slot)), None)
            if good is None:
                raise DeliveryError(
                    f"{self.folder}: version {slot.version} is bad ({why}), and there is none before it to go back to",
                    do="deploy a good bundle",
                )
            return new.back_to(good, "taken back", now(), why)

        return self.change(refusal)

    def mend(self, trust: Trust) -> SlotState:
        """Rebuild what can be relied upon, where `read` cannot: from `newest` and from the bundles that are whole and
        trusted. Nothing is active afterwards.

        Raises:
            DeliveryError: also where nothing is left to learn the product from.
        """
        with self._locked(_LOCK, fcntl.LOCK_EX):
            try:
                return self.read()
            except DeliveryError:
                bundles = list(self._whole_bundles(trust))
            newest = self._decode(NEWEST, decode_newest) or ()
            if not bundles and not newest:
                raise DeliveryError(
                    f"{self.folder}: holds no whole bundle that this machine trusts, nor a whole {NEWEST}",
                    do="move the folder aside and deploy a bundle; nothing is known of the versions active before",
                )
            for bundle in bundles:
                found = (Newest(key, bundle.manifest.version, bundle.sha256) for key in counting_keys(bundle, trust))
                newest = merge_newest(newest, tuple(found))
            latest = max(bundles, key=lambda bundle: bundle.manifest.version, default=None)
            state = SlotState(product=latest.manifest.product if latest else "", newest=newest)
            self._write(state)
            return state

    def clear_away(self) -> None:
        """Delete what no state needs any more; only while `deploying`."""
        with self._locked(_LOCK, fcntl.LOCK_EX):
            states = [self._decode(name, decode_state) for name in (ACTIVE, BEFORE)]
            needed = {slot.file for state in states if state for slot in state.kept}
            for path in self.folder.iterdir():
                left_over = path.name.endswith(".partial") or (path.suffix == BUNDLE_SUFFIX and path.name not in needed)
                if left_over:
                    with suppress(OSError):
                        path.unlink()

    def _write(self, state: SlotState) -> None:
        """Under the lock."""
        with self._writing():
            current = self._file(ACTIVE)
            if current and self._decode(ACTIVE, decode_state):
                replace_file(self.folder / BEFORE, current)
            replace_file(self.folder / ACTIVE, encode_record(state))
            with suppress(OSError):  # it is done, and `active` holds the same
                replace_file(self.folder / NEWEST, encode_record(state.newest))

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise DeliveryError(
                f"{self.folder}: cannot be written ({error.strerror}); what was active stays so",
                do="check the folder, its permissions and free space",
            ) from error

    @contextmanager
    def _locked(self, name: str, how: int) -> Iterator[None]:
        with self._writing():
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = open_lock(self.folder / name)
        busy = DeliveryError(f"{self.folder}: another deployment is under way", do="wait until it has ended")
        with held(lock, busy, how):
            yield

    # Files.

    def _file(self, name: str) -> bytes | None:
        try:
            with (self.folder / name).open("rb") as file:
                return file.read(STATE_LIMIT)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise DeliveryError(
                f"{self.folder / name}: cannot be read ({error.strerror})", do="check its permissions and the disk"
            ) from error

    def _decode(self, name: str, decode: Callable[[bytes], _Decoded]) -> _Decoded | None:
        data = self._file(name)
        try:
            return None if data is None else decode(data)
        except (ValueError, RecursionError):
            return None

    def _left_behind(self) -> bool:
        """Whether something was deployed here once."""
        try:
            names = [path.name for path in self.folder.iterdir()]
        except (FileNotFoundError, NotADirectoryError):
            return False
        except OSError as error:
            raise DeliveryError(
                f"{self.folder}: cannot be read ({error.strerror})", do="check its permissions and the disk"
            ) from error
        return any(name in (ACTIVE, BEFORE, NEWEST) or name.endswith(BUNDLE_SUFFIX) for name in names)

    def _whole_bundles(self, trust: Trust) -> Iterator[Bundle]:
        for path in sorted(self.folder.glob(f"*{BUNDLE_SUFFIX}")):
            with suppress(BundleError):
                yield read_bundle(path, trust)


def counting_keys(bundle: Bundle, trust: Trust) -> tuple[str, ...]:
    """Fingerprints of the keys whose signatures on a bundle count here; one empty text where there are no keys."""
    if not isinstance(trust, TrustedKeys):
        return ("",)
    judged = trust.judge(bundle.signatures, bundle.sha256, bundle.manifest.product)
    return tuple(j.signature.key for j in judged if j.objection is None)
