"""What can go wrong between us and a peer, in words that tell the caller what to do next.

- `ConnectRefused`, `Unreachable`, `ConnectTimedOut`: this address did not answer; another one may.
- `OutOfResources`: we have no file descriptor or memory left; no address would do better now.
- `LocalAddressUnavailable`: the source address that we were told to use is not ours.
- `TLSFailed`: no TLS with this peer; `kind` says whose doing it was.

Operating system errors are translated here and nowhere else; the original one is the cause.
"""

from __future__ import annotations

import enum
import errno
import os

from mailrider.errors import ConnectionLost, DeadlineExceeded, LocalError, NetworkError


class ConnectRefused(NetworkError, ConnectionRefusedError):
    """Nobody listens at that address and port."""


class Unreachable(NetworkError):
    """No way leads to that address, or a firewall forbids it."""


class ConnectTimedOut(DeadlineExceeded):
    """The address did not answer in time."""

    enhanced = "4.4.1"
    public = "No answer from the remote host"


class OutOfResources(LocalError):
    """This machine has no file descriptor or memory left for one more connection."""

    public = "Too many connections at the moment, try again later"


class LocalAddressUnavailable(LocalError):
    """The source address that the configuration names cannot be used."""

    enhanced = "4.3.5"
    public = "System incorrectly configured"


class TLSFailureKind(enum.StrEnum):
    """Who or what ended TLS."""

    ALERT = "alert"
    """The peer said no: a fatal alert."""
    PROTOCOL = "protocol"
    """The peer sent what TLS does not allow, or what we do not accept; we sent the alert."""
    CLOSED = "closed"
    """The peer closed or reset the connection."""
    TIMED_OUT = "timed out"
    """The peer, or the network, was silent."""
    NETWORK = "network"
    """The network failed in another way, which says nothing about the peer."""
    LOCAL = "local"
    """We could not even begin: our own settings do not fit together."""


class TLSFailed(NetworkError):
    """TLS with the peer failed, in the handshake or later.

    `alert`: the name (RFC 8446 6) of the alert that the peer sent, or that we sent for a protocol error, if known.
    """

    enhanced = "4.7.5"
    public = "TLS failed"

    def __init__(self, message: str, kind: TLSFailureKind, alert: str = "") -> None:
        super().__init__(message)
        self.kind = kind
        self.alert = alert

    @property
    def is_peers_doing(self) -> bool:
        """True for an alert, a protocol error or a close: what opportunistic TLS may answer with a new one in clear.

        A time-out is none: nobody said no.
        """
        return self.kind in _PEERS_DOING


_PEERS_DOING = frozenset({TLSFailureKind.ALERT, TLSFailureKind.PROTOCOL, TLSFailureKind.CLOSED})

_REFUSED = frozenset({errno.ECONNREFUSED, errno.ECONNRESET})
_OUT_OF_RESOURCES = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_CLOSED_BY_PEER = frozenset({errno.ECONNRESET, errno.EPIPE, errno.ECONNABORTED})


def connect_error(error: OSError, where: str) -> NetworkError | LocalError:
    """What a failed connect to `where` means."""
    # asyncio's own words ("Connect call failed") are about the call, not the cause.
    reason = os.strerror(error.errno) if error.errno else _reason(error)
    if error.errno in _REFUSED:
        return ConnectRefused(f"{where} refused the connection ({reason})")
    if error.errno == errno.ETIMEDOUT:
        return ConnectTimedOut(f"{where} did not answer ({reason})")
    if error.errno in _OUT_OF_RESOURCES:
        return OutOfResources(f"no connection to {where} can be opened: {reason}")
    # No route, net or host down, no address of that family here, no port left for this one, a
    # firewall, and whatever else there is: another address may do.
    return Unreachable(f"{where} cannot be reached ({reason})")


def loss_of(error: Exception, where: str) -> NetworkError:
    """What it means that an open connection ended with `error`."""
    loss: NetworkError
    if isinstance(error, OSError) and error.errno == errno.ETIMEDOUT:
        loss = DeadlineExceeded(f"the connection to {where} went silent ({_reason(error)})")
    else:
        loss = ConnectionLost(f"the connection to {where} broke ({_reason(error)})")
    loss.__cause__ = error
    return loss


def handshake_loss_of(error: Exception | None, where: str) -> TLSFailed:
    """What it means that a connection ended in the handshake, by `error` or by a close."""
    if error is None:
        why = f"{where}: the connection was closed in the TLS handshake"
        return TLSFailed(why, TLSFailureKind.CLOSED)
    code = error.errno if isinstance(error, OSError) else None
    if code in _CLOSED_BY_PEER:
        kind = TLSFailureKind.CLOSED
    else:
        kind = TLSFailureKind.TIMED_OUT if code == errno.ETIMEDOUT else TLSFailureKind.NETWORK
    failure = TLSFailed(f"{where}: the connection broke in the TLS handshake ({_reason(error)})", kind)
    failure.__cause__ = error
    return failure


def _reason(error: Exception) -> str:
    return (isinstance(error, OSError) and error.strerror) or str(error) or type(error).__name__
