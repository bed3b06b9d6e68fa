"""Where the passphrase of a private key comes from: a file, the environment, or the terminal, without echo."""

from __future__ import annotations

import getpass
import os
import warnings
from pathlib import Path

from lineward.runtime.errors import KeyFileError
from lineward.runtime.guarded_file import read_private

PASSPHRASE_VARIABLE = "LINEWARD_PASSPHRASE"
_LIMIT = 1 << 12


def read_passphrase(file: Path | None, *, twice: bool = False, of: str = "") -> bytes:
    """The passphrase: of the file, else of `LINEWARD_PASSPHRASE`, else asked for.

    Args:
        file: its first line is the passphrase; only its owner may have access to it.
        twice: ask twice, since a slip would be found out too late.
        of: whose it is, for the question.

    Raises:
        KeyFileError: it is empty, the two differ, the file is open to others, or there is no terminal to ask on.
    """
    if file is not None:
        passphrase = (read_private(file, _LIMIT).splitlines() or [b""])[0]
    elif PASSPHRASE_VARIABLE in os.environ:
        passphrase = os.fsencode(os.environ[PASSPHRASE_VARIABLE])
    else:
        passphrase = _ask(f"passphrase of {of}: " if of else "passphrase: ")
        if twice and passphrase and _ask("passphrase again: ") != passphrase:
            raise KeyFileError("the two passphrases differ", do="start again")
    if not passphrase:
        raise KeyFileError("the passphrase is empty", do="choose one that nobody guesses")
    return passphrase


def _ask(prompt: str) -> bytes:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", getpass.GetPassWarning)  # it would be shown as it is typed
            return getpass.getpass(prompt).encode()
    except (getpass.GetPassWarning, EOFError) as error:
        raise KeyFileError(
            "there is no terminal to ask for the passphrase on",
            do=f"give --passphrase-file FILE, or set {PASSPHRASE_VARIABLE}",
        ) from error
