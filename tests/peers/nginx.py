"""Debian's nginx as a policy host: HTTPS on a loopback address of its own, a site for each name.

The system's own nginx is neither read nor touched: one process in the foreground, everything in a temporary folder.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tests.peers.process import accepts, private_directory, running
from tests.support.loopback import new_address

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from tests.peers.certificate import Certificate

PROGRAM = "/usr/sbin/nginx"
_CONF = """
daemon off;
master_process off;
pid {home}/nginx.pid;
error_log {home}/error.log warn;
events {{ }}
http {{
    types {{ text/plain txt; text/html html; }}
    log_format fetches "$host $uri $status";
    access_log {home}/access.log fetches;
    client_body_temp_path {home}/tmp;
    proxy_temp_path {home}/tmp;
    fastcgi_temp_path {home}/tmp;
    uwsgi_temp_path {home}/tmp;
    scgi_temp_path {home}/tmp;
    gzip on;
    gzip_types text/plain;
    server {{
        listen {address}:{port} ssl http2 default_server;
        ssl_reject_handshake on;
    }}
    {sites}
}}
"""
_SITE = """
    server {{
        listen {address}:{port} ssl http2;
        server_name {name};
        ssl_certificate {chain};
        ssl_certificate_key {key};
        root {home}/{name};
        {directives}
    }}
"""


@dataclass(frozen=True)
class Site:
    """What stands at a name: files by path, and whatever nginx is told besides."""

    certificate: Certificate
    files: Mapping[str, bytes] = field(default_factory=dict)
    directives: str = ""


@dataclass(frozen=True)
class Nginx:
    """A running server."""

    address: str
    port: int
    log: Path

    def fetches(self, name: str) -> int:
        """How many requests came for that name."""
        return sum(line.split()[0] == name for line in self.log.read_text().splitlines())


@contextlib.contextmanager
def start_nginx(sites: Mapping[str, Site], port: int = 443) -> Iterator[Nginx]:
    """The sites, served while the block lasts. Needs root, for the port."""
    address = new_address()
    with private_directory() as home:
        blocks = []
        for name, site in sites.items():
            for path, content in site.files.items():
                file = home / name / path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(content)
            blocks.append(
                _SITE.format(
                    address=address,
                    port=port,
                    name=name,
                    home=home,
                    chain=site.certificate.chain,
                    key=site.certificate.key,
                    directives=site.directives,
                )
            )
        (home / "nginx.conf").write_text(_CONF.format(home=home, address=address, port=port, sites="".join(blocks)))
        command = [PROGRAM, "-p", str(home), "-e", str(home / "error.log"), "-c", str(home / "nginx.conf")]
        with running(command, log=home / "nginx.log", ready=lambda: accepts(address, port)):
            yield Nginx(address, port, home / "access.log")
