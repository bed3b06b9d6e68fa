"""Where passphrases come from, and that none is shown, empty or mistyped."""

from __future__ import annotations

import getpass
import os
import warnings

import pytest

from lineward.export.passphrase import read_passphrase
from lineward.runtime.errors import KeyFileError
from tests.signers import write


@pytest.fixture
def typed(monkeypatch):
    """What is typed, in turn; the prompts so far."""

    def answer(*answers):
        left, prompts = list(answers), []

        def ask(prompt):
            prompts.append(prompt)
            return left.pop(0)

        monkeypatch.setattr(getpass, "getpass", ask)
        return prompts

    return answer


@pytest.mark.parametrize(
    ("data", "passphrase"),
    [(b"secret", b"secret"), (b"secret\n", b"secret"), (b"s e\xff\r\nsecond line\n", b"s e\xff"), (b" s ", b" s ")],
)
def test_the_first_line_of_a_file(data, passphrase, tmp_path, monkeypatch):
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "another")
    assert read_passphrase(write(tmp_path / "p", data, 0o600)) == passphrase


@pytest.mark.skipif(os.name != "posix", reason="file modes are POSIX's")
@pytest.mark.parametrize("mode", [0o644, 0o620, 0o604])
def test_a_file_that_others_can_reach(mode, tmp_path):
    with pytest.raises(KeyFileError, match="others than its owner"):
        read_passphrase(write(tmp_path / "p", b"secret", mode))


@pytest.mark.parametrize("data", [b"", b"\n", b"\nsecret"])
def test_an_empty_file(data, tmp_path):
    with pytest.raises(KeyFileError, match="is empty"):
        read_passphrase(write(tmp_path / "p", data, 0o600))


def test_a_missing_or_a_huge_file(tmp_path):
    with pytest.raises(KeyFileError, match="cannot be read"):
        read_passphrase(tmp_path / "p")
    with pytest.raises(KeyFileError, match="more than 4096 bytes"):
        read_passphrase(write(tmp_path / "p", b"s" * 4097, 0o600))


def test_the_environment(monkeypatch):
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "sécret")
    assert read_passphrase(None, twice=True) == "sécret".encode()
    monkeypatch.setenv("LINEWARD_PASSPHRASE", "")
    with pytest.raises(KeyFileError, match="is empty"):
        read_passphrase(None)


@pytest.mark.parametrize(("twice", "answers"), [(False, ["sécret"]), (True, ["sécret", "sécret"])])
def test_the_terminal(twice, answers, typed):
    prompts = typed(*answers)
    assert read_passphrase(None, twice=twice) == "sécret".encode()
    assert len(prompts) == len(answers)


@pytest.mark.parametrize(("answers", "what"), [(["secret", "secert"], "differ"), ([""], "is empty")])
def test_a_slip_on_the_terminal(answers, what, typed):
    typed(*answers)
    with pytest.raises(KeyFileError, match=what):
        read_passphrase(None, twice=True)


@pytest.mark.parametrize("no_terminal", ["would echo", "end of input"])
def test_no_terminal_is_an_error_and_not_a_passphrase_shown(no_terminal, monkeypatch):
    def ask(_):
        if no_terminal == "end of input":
            raise EOFError
        warnings.warn("it would be shown", getpass.GetPassWarning, stacklevel=2)
        return "shown"

    monkeypatch.setattr(getpass, "getpass", ask)
    with pytest.raises(KeyFileError, match="no terminal") as caught:
        read_passphrase(None)
    assert "--passphrase-file" in caught.value.do
