"""Exceptions: families by blame, with what an SMTP reply needs."""

from __future__ import annotations

import copy
import pickle

import pytest

from mailrider.errors import (
    ConfigError,
    ConnectionLost,
    DeadlineExceeded,
    InvalidValue,
    LocalError,
    MailriderError,
    NetworkError,
    PeerError,
    Problem,
    in_one_line,
)
from mailrider.model.reply import Reply

FAMILIES: list[tuple[type[MailriderError], tuple[type[Exception], ...], int, str]] = [
    (MailriderError, (), 451, "4.3.0"),
    (LocalError, (), 451, "4.3.0"),
    (InvalidValue, (LocalError, ValueError), 501, "5.5.4"),
    (PeerError, (), 451, "4.5.0"),
    (NetworkError, (ConnectionError, OSError), 451, "4.4.1"),
    (ConnectionLost, (NetworkError,), 451, "4.4.2"),
    (DeadlineExceeded, (NetworkError, TimeoutError), 451, "4.4.2"),
    (ConfigError, (), 451, "4.3.5"),
]


@pytest.mark.parametrize(("kind", "also", "code", "enhanced"), FAMILIES)
def test_every_family_is_caught_by_its_root_and_the_builtin_that_fits(
    kind: type[MailriderError], also: tuple[type[Exception], ...], code: int, enhanced: str
) -> None:
    error = kind("secret detail")
    assert isinstance(error, MailriderError)
    assert all(isinstance(error, parent) for parent in also)
    assert str(error) == "secret detail"
    assert (error.code, error.enhanced, error.permanent) == (code, enhanced, code >= 500)
    assert "secret" not in error.public


@pytest.mark.parametrize(("kind", "also", "code", "enhanced"), FAMILIES)
def test_the_defaults_of_every_family_make_a_reply(
    kind: type[MailriderError], also: tuple[type[Exception], ...], code: int, enhanced: str
) -> None:
    assert Reply.make(code, enhanced, kind.public).text == kind.public


def test_unknown_means_temporary() -> None:
    assert not MailriderError("hm").permanent


def test_one_error_can_say_more_than_its_family() -> None:
    error = NetworkError("no route to 192.0.2.1", code=550, enhanced="5.4.4", public="No such host")
    assert (error.code, error.enhanced, error.public, error.permanent) == (550, "5.4.4", "No such host", True)
    assert str(error) == "no route to 192.0.2.1"
    assert NetworkError.code == 451


def test_an_error_can_be_copied_to_another_process() -> None:
    error = DeadlineExceeded("too late", code=421)
    for twin in (copy.copy(error), pickle.loads(pickle.dumps(error))):  # noqa: S301
        assert (type(twin), str(twin), twin.code) == (DeadlineExceeded, "too late", 421)


@pytest.mark.parametrize(
    ("problem", "shown"),
    [
        (Problem("no such directive"), "no such directive"),
        (Problem("no such directive", "a.conf"), "a.conf: no such directive"),
        (Problem("no such directive", "a.conf", 3), "a.conf:3: no such directive"),
        (
            Problem("no such directive", "a.conf", 3, 5, "foo bar\n    ^", ("b.conf:1",)),
            "a.conf:3:5: no such directive\n    foo bar\n        ^\n  imported at b.conf:1",
        ),
    ],
)
def test_a_problem_of_a_configuration_shows_its_place(problem: Problem, shown: str) -> None:
    assert str(problem) == shown
    assert str(ConfigError([problem, problem])) == f"{shown}\n{shown}"
    assert ConfigError([problem]).problems == (problem,)


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (LocalError("no room"), "no room"),
        (OSError(), "OSError"),
        (
            ConfigError(
                [
                    Problem("no such file", "a.conf", 3, 5, "tls x\n    ^", ("main.conf:1:1",)),
                    Problem("workers: too many"),
                ]
            ),
            "a.conf:3:5: no such file; imported at main.conf:1:1; workers: too many",
        ),
    ],
    ids=["a message", "nothing", "problems with excerpts"],
)
def test_a_line_of_the_log_has_what_an_error_says_without_excerpts(error: Exception, line: str) -> None:
    assert in_one_line(error) == line
