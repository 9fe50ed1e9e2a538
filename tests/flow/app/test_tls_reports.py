"""The daemon counts what it sees of TLS, and its reports reach those who ask for them (RFC 8460)."""

from __future__ import annotations

import asyncio
import email
import email.policy
import gzip
import json
from datetime import timedelta
from ipaddress import ip_address
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.app.reports import report_guard, store_of
from mailrider.app.running import Process, open_configuration
from mailrider.clock import SystemClock, after
from mailrider.config import load
from mailrider.delivery.limits.shares import Shares
from mailrider.endpoint.logins import Logins
from mailrider.endpoint.sockets import Sockets
from mailrider.errors import ConfigError
from mailrider.lab.internet import Internet
from mailrider.observe.metrics import Metrics
from mailrider.tlsrpt.report import DayCounts, PolicyType, ReportedPolicy, SessionFinding
from tests.support.commands import run
from tests.support.loopback import free_port

if TYPE_CHECKING:
    from pathlib import Path

    from mailrider.config import Configuration
    from mailrider.model.event import Event

BLOCK = """
tlsrpt {{
    organization "Example Inc."
    contact tls@sender.test
    through &{through}
    root_ca {folder}/root.pem
}}
target.queue outgoing {{
    target &lab
    modify {{
        dkim sender.test lab
    }}
}}
"""


def configured(internet: Internet, through: str = "outgoing") -> Configuration:
    path = internet.folder / "daemon.conf"
    path.write_text(internet.configuration + BLOCK.format(folder=internet.folder, through=through))
    return load(path)


@pytest.mark.parametrize(
    ("target", "allowed", "refused"),
    [
        ("target.remote out {\nprohibited_addresses none\n}", "127.0.0.1 10.0.0.1 192.168.0.1", ""),
        ("target.remote out", "10.0.0.1 9.9.9.9", "127.0.0.1 192.168.0.1"),
        ("target.smtp out {\nhost tcp://192.0.2.1:25\n}", "10.0.0.1 9.9.9.9", "127.0.0.1 192.168.0.1"),
    ],
)
def test_reports_are_posted_where_the_target_that_carries_them_may_connect_to(
    tmp_path: Path, target: str, allowed: str, refused: str
) -> None:
    block = "organization Us\ncontact tls@sender.test\nthrough &q\nallow_addresses 10.0.0.0/8"
    path = tmp_path / "some.conf"
    path.write_text(f"hostname mx.sender.test\ntlsrpt {{\n{block}\n}}\n{target}\ntarget.queue q {{\ntarget &out\n}}\n")
    configuration = load(path)
    assert configuration.globals.tlsrpt is not None
    guard = report_guard(configuration, configuration.globals.tlsrpt)
    assert [each for each in allowed.split() if guard.refusal(ip_address(each))] == []
    assert [each for each in refused.split() if not guard.refusal(ip_address(each))] == []


def lab(folder: Path) -> Internet:
    return Internet(folder, port=free_port(), dns_port=0, https_port=0)


async def test_what_was_counted_yesterday_is_posted_and_mailed_today(tmp_path: Path) -> None:
    clock = SystemClock()
    events: list[Event] = []
    async with lab(tmp_path) as internet:
        configuration = await asyncio.to_thread(configured, internet)
        settings = configuration.globals.tlsrpt
        assert settings is not None
        process = Process(Sockets(), events.append, clock, Metrics(), Logins(clock))
        store = store_of(configuration, settings)
        async with open_configuration(configuration, process, Shares(clock)) as running, after(clock, 240):
            file = internet.folder / "daemon.conf"
            for domain in ("sts.test", "tls.test"):
                words = ("send", "--queue", "--from", "me@sender.test", "--to", f"you@{domain}", "-")
                sent = await run("-c", file, *words, stdin=b"From: me@sender.test\r\n\r\nHello\r\n")
                assert sent.code == 0, sent.err
            for mx in ("mx.sts.test", "mx.tls.test"):
                await internet.servers[mx].wait_message(1)
            await running.write_tls_counts()
            (sts,), (tls,) = store.days("sts.test"), store.days("tls.test")
            yesterday = sts.day - timedelta(days=1)
            store.add({(yesterday, "sts.test"): sts.counts, (yesterday, "tls.test"): tls.counts})
            assert (store.make_due("sts.test", clock.now()), store.make_due("tls.test", clock.now())) == (1, 1)
            _, _, body = await internet.sts.wait_report()
            mailed = await internet.servers["mx.tls.test"].wait_message(2)
            await running.write_tls_counts()
            assert [len(store.days("tls.test")), len(store.days("tls.test")[0].counts.policies)] == [2, 1]
        process.sockets.close()
    posted = json.loads(gzip.decompress(body))
    assert posted["policies"][0]["policy"]["policy-domain"] == "sts.test"
    message: Any = email.message_from_bytes(mailed.content, policy=email.policy.default)
    assert (message["TLS-Report-Domain"], message["DKIM-Signature"] is not None) == ("tls.test", True)
    assert (mailed.sender, message["To"]) == ("tls@sender.test", "tls-reports@tls.test")
    counted = json.loads(gzip.decompress(list(message.iter_parts())[1].get_content()))["policies"]
    assert counted[0]["summary"] == {"total-successful-session-count": 1, "total-failure-session-count": 0}


async def test_explain_says_where_reports_go_and_what_was_counted_today(tmp_path: Path) -> None:
    async with lab(tmp_path) as internet:
        configuration = await asyncio.to_thread(configured, internet)
        settings = configuration.globals.tlsrpt
        assert settings is not None
        counts = DayCounts()
        counts.add([SessionFinding(ReportedPolicy(PolicyType.STS, "sts.test"))])
        store_of(configuration, settings).add({(SystemClock().now().date(), "sts.test"): counts})
        path = internet.folder / "daemon.conf"
        ran = await run("-c", path, "explain", "--target", "lab", "--no-connect", "sts.test")
        (shown,) = (await run("-c", path, "explain", "--target", "lab", "--no-connect", "--json", "tls.test")).objects
    url = f"https://mta-sts.sts.test:{internet.sts.port}/tlsrpt"
    assert f"TLS reports go to {url} (counted today: 1 good, 0 failed)" in ran.out
    assert shown["tlsrpt"] == {"endpoints": ["mailto:tls-reports@tls.test"], "reason": "", "today": []}


async def test_where_dns_is_silent_explain_does_not_say_that_reports_are_not_wanted(tmp_path: Path) -> None:
    async with lab(tmp_path) as internet:
        configured(internet)
        path = internet.folder / "daemon.conf"
        silent = await run("-c", path, "explain", "--target", "lab", "--no-connect", "servfail.test")
        without = await run("-c", path, "explain", "--target", "lab", "--no-connect", "plain.test")
    assert "TLS reports may be wanted or not: TXT lookup of _smtp._tls.servfail.test failed" in silent.out
    assert "TLS reports are not wanted: " in without.out


async def test_reports_by_mail_go_through_a_queue(tmp_path: Path) -> None:
    async with lab(tmp_path) as internet:
        with pytest.raises(
            ConfigError, match=r"through: &lab is of kind target\.remote, but has to be .* target\.queue"
        ):
            await asyncio.to_thread(configured, internet, "lab")
