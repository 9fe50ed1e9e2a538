"""Debian's HAProxy in front of an endpoint: TCP passed through as it is, the PROXY protocol before it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from tests.peers.process import accepts, private_directory, running

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = "/usr/sbin/haproxy"
_CONF = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 30s
    timeout server 30s
listen mail
    bind {address}:{port}
    server mailrider {target} {words} source {source}
"""


@contextlib.contextmanager
def start_haproxy(address: str, port: int, target: str, words: str, source: str) -> Iterator[None]:
    """Passes connections at `address` on to `target`, from `source`, while the block lasts; `words` say how."""
    with private_directory() as home:
        file = home / "haproxy.cfg"
        file.write_text(_CONF.format(address=address, port=port, target=target, words=words, source=source))
        with running([PROGRAM, "-db", "-f", str(file)], log=home / "log", ready=lambda: accepts(address, port)):
            yield
