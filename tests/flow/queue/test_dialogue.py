"""What was said in the last try that failed, and what was signed, in `queue show` and `trace`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.cli.main import main

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.lab.pytest_lab import PytestLab


class Terminal:
    """Runs commands with the lab's configuration, and a queue in front of its target."""

    def __init__(self, lab: PytestLab, folder: Path, capture: pytest.CaptureFixture[str], more: str = "") -> None:
        self._capture = capture
        self._config = folder / "mailrider.conf"
        lab_part = lab.configuration_file.read_text()
        self._config.write_text(f"{lab_part}\nlog off\ntarget.queue mail {{ target &lab\n{more}\n}}\n")
        self._message = folder / "message"
        self._message.write_bytes(b"From: a@sender.test\r\nSubject: secret subject\r\n\r\nHello.\r\n")

    def __call__(self, *words: str) -> str:
        with pytest.raises(SystemExit):
            main(["-c", str(self._config), *words])
        return self._capture.readouterr().out

    def send(self, *recipients: str) -> str:
        to = [word for each in recipients for word in ("--to", each)]
        return self("send", "--queue", "--from", "a@sender.test", *to, str(self._message)).strip()

    def deliver(self) -> None:
        self("queue", "run")

    def shown(self, id: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self("queue", "show", id, "--json"))
        return loaded

    def traced(self, id: str) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self("trace", id, "--json"))
        return loaded


def test_the_dialogue_of_the_last_try_alone_is_kept(
    mailrider_lab: PytestLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(mailrider_lab, tmp_path, capsys)
    mailrider_lab.refuse("b@plain.test", "451 4.7.1 Grey as a cat", times=1)
    id = terminal.send("b@plain.test", "c@plain.test")
    terminal.deliver()
    mailrider_lab.refuse("b@plain.test", "452 4.2.2 Full to the brim", times=1)
    terminal("queue", "retry", id)
    terminal.deliver()
    first, second = terminal.shown(id)["recipients"][0]["history"]
    assert "dialogue" not in first
    said = second["dialogue"]
    assert "C: RCPT TO:<b@plain.test>" in said
    assert "S: 452 4.2.2 Full to the brim" in said
    assert "c@plain.test" not in said
    assert "Hello" not in said
    assert "secret" not in said
    assert terminal.traced(id)["queued"][0]["dialogue"] == said
    for text in (terminal("queue", "show", id), terminal("trace", id)):
        assert text.count("what was said:") == 1
        assert "    S: 452 4.2.2 Full to the brim" in text


def test_the_dialogue_of_a_failure_stays_in_the_history(
    mailrider_lab: PytestLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(mailrider_lab, tmp_path, capsys)
    mailrider_lab.refuse("b@plain.test", "550 5.1.1 Nobody of that name")
    id = terminal.send("b@plain.test")
    terminal.deliver()
    failed = next(each for each in terminal.traced(id)["events"] if each["event"] == "recipient.failed")
    assert "S: 550 5.1.1 Nobody of that name" in failed["dialogue"]
    assert "    S: 550 5.1.1 Nobody of that name" in terminal("trace", id)
    terminal("history", "drop", "b@plain.test")
    assert "Nobody of that name" not in terminal("trace", id)


def test_mail_that_arrived_has_no_dialogue(
    mailrider_lab: PytestLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal(mailrider_lab, tmp_path, capsys)
    id = terminal.send("b@plain.test")
    terminal.deliver()
    (delivered,) = terminal.traced(id)["events"]
    assert delivered["event"] == "recipient.delivered"
    assert "dialogue" not in delivered


def test_trace_tells_who_signed(mailrider_lab: PytestLab, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(mailrider_lab, tmp_path, capsys, "modify {\n dkim sender.test s1\n dkim other.test s2\n}")
    id = terminal.send("b@plain.test")
    terminal.deliver()
    assert terminal.traced(id)["signed"] == ["sender.test/s1"]
    assert "Signed    sender.test/s1\n" in terminal("trace", id)
    assert "s=s1;" in str(mailrider_lab.sent_to("b@plain.test")[0].message["DKIM-Signature"])
