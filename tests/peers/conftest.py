"""Real servers from Debian, as fixtures. They want root; without it these tests are left out.

`postfix` and `opensmtpd` receive for `example.net`; the former with STARTTLS and a certificate for
`mx.example.net` from `authority`, the latter in clear (`broken_tls` is an OpenSMTPD that offers
STARTTLS and fails at it). They last as long as their process, so give each test a recipient of its own
(`recipient`). `receiver` is one after the other. For other settings use `start_postfix`,
`start_opensmtpd`, `start_resolver` directly. With CI=true a test that cannot run fails.
"""

from __future__ import annotations

import itertools
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import pytest

from tests.peers.certificate import Authority, Certificate
from tests.peers.opensmtpd import UNPACKED, OpenSMTPD, OpenSMTPDSettings, start_opensmtpd
from tests.peers.postfix import Postfix, PostfixSettings, start_postfix
from tests.peers.systemd import SYSTEMD

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.peers.receiver import Receiver

_numbers = itertools.count(1)
HERE = Path(__file__).parent
_PROGRAMS = {
    "Postfix": Path("/usr/lib/postfix/sbin/master"),
    "OpenSMTPD": UNPACKED / "usr/sbin/smtpd",
    "NSD": Path("/usr/sbin/nsd"),
    "unbound": Path("/usr/sbin/unbound"),
    "libunbound": next(Path("/usr/lib").glob("*/libunbound.so.8"), Path("libunbound8")),
    "delv": Path("/usr/bin/delv"),
    "nginx": Path("/usr/sbin/nginx"),
    "HAProxy": Path("/usr/sbin/haproxy"),
    "ldns": Path("/usr/bin/ldns-signzone"),
    "swaks": Path("/usr/bin/swaks"),
    "curl": Path("/usr/bin/curl"),
    "msmtp": Path("/usr/bin/msmtp"),
    "SASL": next(Path("/usr/lib").glob("*/sasl2/libplain.so*"), Path("libsasl2-modules")),
    "systemd": SYSTEMD,
    "PHP": Path("/usr/bin/php"),
    "git send-email": Path("/usr/lib/git-core/git-send-email"),
    "s-nail": Path("/usr/bin/s-nail"),
    "mutt": Path("/usr/bin/mutt"),
    "dkimpy": Path("/usr/lib/python3/dist-packages/dkim/__init__.py"),
}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.peers)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if not item.path.is_relative_to(HERE):
        return
    if reason := _what_is_missing():
        leave_out(reason)


def leave_out(reason: str) -> NoReturn:
    """The test cannot run here."""
    if os.environ.get("CI") == "true":
        pytest.fail(f"with CI=true nothing is left out: {reason}", pytrace=False)
    pytest.skip(reason)


def _what_is_missing() -> str | None:
    if os.geteuid() != 0:
        return "real servers want root"
    missing = [name for name, program in _PROGRAMS.items() if not program.exists()]
    return f"not installed: {', '.join(missing)} (make test installs them)" if missing else None


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="session")
def certificate(authority: Authority) -> Certificate:
    return authority.issue("mx.example.net")


@pytest.fixture(scope="session")
def postfix(certificate: Certificate) -> Iterator[Postfix]:
    with start_postfix(PostfixSettings(certificate=certificate)) as server:
        yield server


@pytest.fixture(scope="session")
def opensmtpd() -> Iterator[OpenSMTPD]:
    with start_opensmtpd(OpenSMTPDSettings()) as server:
        yield server


@pytest.fixture(scope="session")
def broken_tls(certificate: Certificate) -> Iterator[OpenSMTPD]:
    with start_opensmtpd(OpenSMTPDSettings(certificate=certificate)) as server:
        yield server


@pytest.fixture(params=["postfix", "opensmtpd"])
def receiver(request: pytest.FixtureRequest) -> Receiver:
    server: Receiver = request.getfixturevalue(request.param)
    return server


@pytest.fixture
def recipient(request: pytest.FixtureRequest) -> str:
    """An address at example.net that no other test uses."""
    name = re.sub(r"[^a-z0-9]+", "-", request.node.name.lower())[-40:].strip("-")
    return f"{name}.{next(_numbers)}@example.net"
