"""What the operating system says, and what it means for the next address."""

from __future__ import annotations

import errno
import os

import pytest

from mailrider.errors import ConnectionLost, DeadlineExceeded, LocalError, MailriderError, NetworkError
from mailrider.net.errors import (
    ConnectRefused,
    ConnectTimedOut,
    OutOfResources,
    TLSFailed,
    TLSFailureKind,
    Unreachable,
    connect_error,
    loss_of,
)


@pytest.mark.parametrize(
    ("code", "meaning"),
    [
        (errno.ECONNREFUSED, ConnectRefused),
        (errno.ECONNRESET, ConnectRefused),
        (errno.ETIMEDOUT, ConnectTimedOut),
        (errno.EHOSTUNREACH, Unreachable),
        (errno.ENETUNREACH, Unreachable),
        (errno.EPERM, Unreachable),
        (errno.EACCES, Unreachable),
        (errno.EAFNOSUPPORT, Unreachable),
        (errno.EADDRNOTAVAIL, Unreachable),
        (errno.EMFILE, OutOfResources),
        (errno.ENFILE, OutOfResources),
        (errno.ENOBUFS, OutOfResources),
        (errno.ENOMEM, OutOfResources),
    ],
)
def test_a_failed_connect_is_temporary_and_says_whose_fault_it_is(code: int, meaning: type[MailriderError]) -> None:
    error = connect_error(OSError(code, os.strerror(code)), "[192.0.2.1]:25")
    assert type(error) is meaning
    assert not error.permanent
    assert "[192.0.2.1]:25" in str(error)
    assert os.strerror(code) in str(error)
    assert isinstance(error, LocalError if meaning is OutOfResources else NetworkError)


def test_the_builtin_families_fit() -> None:
    assert issubclass(ConnectRefused, ConnectionRefusedError)
    assert issubclass(ConnectTimedOut, TimeoutError)
    assert issubclass(TLSFailed, ConnectionError)


@pytest.mark.parametrize(
    ("error", "meaning", "said"),
    [
        (OSError(errno.ETIMEDOUT, "timed out"), DeadlineExceeded, "went silent (timed out)"),
        (OSError(errno.EPIPE, "Broken pipe"), ConnectionLost, "broke (Broken pipe)"),
        (RuntimeError(), ConnectionLost, "broke (RuntimeError)"),
    ],
)
def test_a_loss_says_how(error: Exception, meaning: type[Exception], said: str) -> None:
    loss = loss_of(error, "192.0.2.1")
    assert type(loss) is meaning
    assert str(loss) == f"the connection to 192.0.2.1 {said}"
    assert loss.__cause__ is error


@pytest.mark.parametrize("kind", TLSFailureKind)
def test_only_alert_protocol_error_and_close_are_the_peers_doing(kind: TLSFailureKind) -> None:
    failure = TLSFailed("no", kind)
    assert failure.is_peers_doing is (kind in ("alert", "protocol", "closed"))
    assert (failure.code, failure.enhanced) == (451, "4.7.5")
