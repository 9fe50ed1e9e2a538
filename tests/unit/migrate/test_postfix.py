"""A main.cf of a real shape becomes a configuration that loads, and each of its lines is accounted for."""

from __future__ import annotations

import re
from datetime import timedelta
from ipaddress import ip_network
from typing import TYPE_CHECKING, Any

import pytest

from mailrider.config import loads
from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.endpoint.settings import EndpointSettings, SubmissionSettings
from mailrider.errors import ConfigError
from mailrider.migrate.postfix import migrate
from mailrider.migrate.postfix_files import Values, duration, parse_main, parse_master, parse_table, split_list
from mailrider.migrate.postfix_table import REASONS, SIMPLE
from mailrider.migrate.postfix_targets import PASSWORD_FILE
from mailrider.model.security import TLSLevel
from mailrider.queue.settings import QueueSettings
from mailrider.settings.directive import MissingSecret

if TYPE_CHECKING:
    from mailrider.config import Configuration

MAIN = """# See /usr/share/postfix/main.cf.dist
smtpd_banner = $myhostname ESMTP $mail_name (Debian/GNU)
biff = no
append_dot_mydomain = no
compatibility_level = 3.6

# TLS parameters
smtpd_tls_cert_file=/etc/ssl/mx.pem
smtpd_tls_key_file=/etc/ssl/mx.key
smtpd_tls_security_level=may
smtp_tls_security_level=encrypt
smtp_tls_session_cache_database = btree:${data_directory}/smtp_scache
smtp_tls_policy_maps = hash:/etc/postfix/tls_policy
smtpd_relay_restrictions = permit_mynetworks permit_sasl_authenticated
    defer_unauth_destination
myhostname = mail.example.org
mydomain = example.org
alias_maps = hash:/etc/aliases
alias_database = hash:/etc/aliases
myorigin = /etc/mailname
mydestination = $myhostname, localhost.$mydomain, localhost
mynetworks = 127.0.0.0/8 [::ffff:127.0.0.0]/104 [::1]/128 10.20.0.0/16
    203.0.113.0/24
recipient_delimiter = +
inet_interfaces = all
virtual_alias_maps = hash:/etc/postfix/virtual, pcre:/etc/postfix/virtual.pcre
smtp_sasl_auth_enable = yes
smtp_sasl_password_maps = hash:/etc/postfix/sasl_passwd
message_size_limit = 52428800
maximal_queue_lifetime = 3d
delay_warning_time = 4
notify_classes = resource, software, 2bounce
2bounce_notice_recipient = admin@example.net
default_destination_concurrency_limit = 20
header_checks = pcre:/etc/postfix/header_checks
smtpd_sender_login_maps = hash:/etc/postfix/sender_login
transport_maps = hash:/etc/postfix/transport
my_own_thing = x
message_size_limit = 20971520
this is no parameter
"""
RELAY = MAIN + "relayhost = [smtp.provider.example]:587\n"
MASTER = """smtp      inet  n       -       y       -       -       smtpd
submission inet n       -       y       -       -       smtpd
  -o syslog_name=postfix/submission
  -o smtpd_tls_security_level=encrypt
  -o smtpd_sasl_auth_enable=yes
  -o { smtpd_client_restrictions = permit_sasl_authenticated, reject }
submissions     inet  n       -       y       -       -       smtpd
  -o smtpd_tls_wrappermode=yes -o smtpd_sasl_auth_enable=yes
pickup    unix  n       -       y       60      1       pickup
127.0.0.1:10025 inet n - n - - smtpd
  -o content_filter=
2525 inet n - n - - smtpd
policy  unix  -  n  n  -  0  spawn user=nobody argv=/usr/bin/policyd
nonsense
"""
FILES = {
    "/etc/mailname": "example.org\n",
    "/etc/postfix/virtual": "root@example.org  admin@example.net\ninfo@example.com ann@example.net\npostmaster root\n",
    "/etc/postfix/sasl_passwd": "[other]:587 a:b\n[smtp.provider.example]:587 relayuser:hunter2:x\n",
    "/etc/postfix/tls_policy": "partner.example secure match=.partner.example\n.sub.example encrypt\n"
    "bank.example encrypt\nfriend.example encrypt\nold.example may\n",
    "/etc/postfix/sender_login": "ann@example.org ann\n@example.net bob, ann\n",
    "/etc/postfix/transport": "lists.example lmtp:unix:private/lists\nhost.example smtp:[10.1.2.3]:2525\n"
    "bad.example error:5.1.1 gone\n* smtp:\n.sub.example smtp:[a.test]\n",
}


def migrated(main: str, master: str | None = None, files: dict[str, str] | None = None) -> str:
    return migrate(main, "main.cf", master, "master.cf", (FILES if files is None else files).get, "own.example")


def loaded(text: str) -> Configuration:
    return loads(text, environment={})


def settings(configuration: Configuration, name: str) -> Any:
    return configuration.target(name).settings


def endpoints(configuration: Configuration) -> dict[str, EndpointSettings]:
    found: dict[str, EndpointSettings] = {}
    for each in configuration.endpoints:
        assert isinstance(each.settings, EndpointSettings)
        found[" ".join(map(str, each.settings.listen))] = each.settings
    return found


@pytest.mark.parametrize("main", [MAIN, RELAY], ids=["to the world", "by a relay"])
@pytest.mark.parametrize("master", [MASTER, None], ids=["with master.cf", "without"])
def test_each_line_stands_there_with_what_became_of_it(main: str, master: str | None) -> None:
    text = migrated(main, master)
    loaded(text)
    starts = {number for number, _ in _logical(main)}
    assert {int(each) for each in re.findall(r"# main\.cf:([0-9]+) ", text)} == starts
    if master is not None:
        told = {int(each) for each in re.findall(r"# master\.cf:([0-9]+) ", text)}
        assert told == {number for number, _ in _logical(master)}
        assert all(f"-o {option}" in text for option in ("syslog_name=", "smtpd_client_restrictions=permit"))


def _logical(text: str) -> list[tuple[int, str]]:
    lines = enumerate(text.split("\n"), 1)
    return [(number, line) for number, line in lines if line and line[0] not in "# \t"]


def test_what_has_a_counterpart_is_translated() -> None:
    configuration = loaded(migrated(RELAY, MASTER))
    assert str(configuration.globals.hostname) == "mail.example.org"
    assert str(configuration.globals.origin) == "example.org"
    assert str(configuration.globals.aliases) == "/etc/aliases"
    assert str(configuration.globals.postmaster) == "admin@example.net"
    assert (str(configuration.globals.tls.cert), str(configuration.globals.tls.key)) == (
        "/etc/ssl/mx.pem",
        "/etc/ssl/mx.key",
    )
    queue = settings(configuration, "outqueue")
    assert isinstance(queue, QueueSettings)
    assert (queue.expire, queue.delay_warning, str(queue.target)) == (timedelta(days=3), timedelta(hours=4), "&relay")
    relay = settings(configuration, "relay")
    assert isinstance(relay, SmarthostSettings)
    assert [str(each) for each in relay.host] == ["tcp://smtp.provider.example:587"]
    assert relay.min_tls_level is TLSLevel.ENCRYPTED
    assert relay.limits is not None


def test_a_password_is_never_written_and_stands_in_a_file_instead() -> None:
    text = migrated(RELAY + "smtp_sasl_password_maps = inline:{[smtp.provider.example]:587=me:hunter2}\n")
    for each in (text, migrated(RELAY, MASTER)):
        assert "hunter2" not in each
        auth = settings(loaded(each), "relay").auth
        assert isinstance(auth, MissingSecret)  # until it is there
        assert PASSWORD_FILE in auth.problem.message
    assert f"auth plain me {{file:{PASSWORD_FILE}}}" in text
    assert f"auth plain relayuser {{file:{PASSWORD_FILE}}}" in migrated(RELAY)
    assert f"auth plain USER {{file:{PASSWORD_FILE}}}" in migrated(RELAY, files={})


def test_services_become_endpoints() -> None:
    found = endpoints(loaded(migrated(RELAY, MASTER)))
    assert list(found) == [
        "unix:///run/mailrider/submission.sock",
        "tcp://0.0.0.0:25 tcp://[::]:25",
        "tcp://0.0.0.0:587 tcp://[::]:587",
        "tls://0.0.0.0:465 tls://[::]:465",
        "tcp://127.0.0.1:10025",
    ]
    relay = found["tcp://0.0.0.0:25 tcp://[::]:25"]
    assert isinstance(relay, SubmissionSettings)
    assert (relay.trust, [str(each) for each in relay.sender_domains]) == (
        tuple(map(ip_network, ("10.20.0.0/16", "127.0.0.1/32", "::1/128"))),
        ["example.org"],
    )
    for name in ("tcp://0.0.0.0:587 tcp://[::]:587", "tls://0.0.0.0:465 tls://[::]:465"):
        endpoint = found[name]
        assert endpoint.auth is not None
        assert endpoint.max_message_size == 20971520
        assert endpoint.check is not None
        assert endpoint.check.authorize_sender is not None
        rights = {each.user: {str(own) for own in each.own} for each in endpoint.check.authorize_sender.user}
        assert rights == {"ann": {"ann@example.org", "example.net"}, "bob": {"example.net"}}
    text = migrated(RELAY, MASTER)
    assert "these have to log in: 203.0.113.0/24" in text
    assert "without logins an endpoint would be an open relay" in text  # 2525, to the world


@pytest.mark.parametrize(
    ("interfaces", "networks", "trusted"),
    [
        ("all", "127.0.0.0/8 [::1]/128 10.20.0.0/16", ["10.20.0.0/16", "127.0.0.1/32", "::1/128"]),
        ("all", "10.20.0.0/16", ["10.20.0.0/16"]),
        ("127.0.0.1, 10.20.0.2", "127.0.0.0/8 10.20.0.0/16", ["10.20.0.0/16"]),
    ],
)
def test_programs_that_hand_in_mail_at_localhost_go_on(interfaces: str, networks: str, trusted: list[str]) -> None:
    main = f"myhostname = mx.example.org\nmydomain = example.org\ninet_interfaces = {interfaces}\n"
    found = endpoints(loaded(migrated(f"{main}mynetworks = {networks}\n", "smtp inet n - y - - smtpd\n")))
    (endpoint,) = [each for name, each in found.items() if ":25" in name]
    assert isinstance(endpoint, SubmissionSettings)
    assert [str(each) for each in endpoint.trust] == trusted


@pytest.mark.parametrize(
    ("lines", "listen"),
    [
        ("inet_interfaces = loopback-only", "tcp://127.0.0.1:25 tcp://[::1]:25"),
        ("inet_interfaces = loopback-only\ninet_protocols = ipv4", "tcp://127.0.0.1:25"),
        ("inet_interfaces = 127.0.0.1, 10.20.0.1\nmynetworks = 10.20.0.0/16", "tcp://127.0.0.1:25 tcp://10.20.0.1:25"),
        ("", "tcp://127.0.0.1:25"),  # whoever is beyond this machine proves nothing
        ("mynetworks = 203.0.113.0/24", "tcp://127.0.0.1:25"),
        ("inet_interfaces = some.name", "tcp://127.0.0.1:25"),
    ],
)
def test_port_25_is_open_to_whom_an_address_may_let_in(lines: str, listen: str) -> None:
    for master in (None, "smtp inet n - y - - smtpd\n"):
        assert list(endpoints(loaded(migrated(f"{lines}\n", master))))[1:] == [listen]


def test_mail_from_the_world_goes_to_the_mailboxes_that_speak_lmtp() -> None:
    main = (
        "virtual_mailbox_domains = example.org, example.net\nvirtual_transport = lmtp:unix:private/dovecot-lmtp\n"
        "mynetworks = 10.20.0.0/16\n"
    )
    text = migrated(main, MASTER)
    configuration = loaded(text)
    (endpoint,) = [each.settings for each in configuration.endpoints if each.kind == "smtp"]
    assert isinstance(endpoint, EndpointSettings)
    (rule,) = endpoint.destination
    assert [str(each) for each in rule.matches] == ["example.org", "example.net"]
    mailboxes = settings(configuration, "mailboxes")
    assert type(mailboxes) is LMTPSettings
    assert str(settings(configuration, "mailboxes").host[0]) == "unix:///var/spool/postfix/private/dovecot-lmtp"
    assert "Give these an endpoint of their own" in text


def test_tls_policies_of_domains_become_targets_of_their_own() -> None:
    text = migrated(MAIN, MASTER)
    configuration = loaded(text)
    endpoint = endpoints(configuration)["unix:///run/mailrider/submission.sock"]
    targets = {str(match): str(rule.route.deliver_to) for rule in endpoint.destination for match in rule.matches}
    assert targets["partner.example"] == "&outqueue_secure"
    assert targets["bank.example"] == targets["friend.example"] == "&outqueue_encrypt"
    assert targets["old.example"] == "&outqueue_may"

    def level(name: str) -> TLSLevel | None:
        found = settings(configuration, name)
        assert isinstance(found, RemoteSettings)
        assert found.mx_auth is not None
        assert found.mx_auth.dane is not None
        return None if found.mx_auth.local_policy is None else found.mx_auth.local_policy.min_tls_level

    assert level("outbound") is TLSLevel.ENCRYPTED
    assert level("outbound_secure") is TLSLevel.AUTHENTICATED
    assert level("outbound_encrypt") is TLSLevel.ENCRYPTED
    assert level("outbound_may") is None
    assert ".sub.example encrypt: only whole domains" in text
    assert "what stands behind the level is not kept" in text
    assert settings(configuration, "outqueue_secure").expire == timedelta(days=3)


def test_transports_become_destinations() -> None:
    text = migrated(MAIN, MASTER)
    configuration = loaded(text)
    endpoint = endpoints(configuration)["unix:///run/mailrider/submission.sock"]
    routes = {str(match): rule.route for rule in endpoint.destination for match in rule.matches}
    assert str(settings(configuration, "route1").host[0]) == "unix:///var/spool/postfix/private/lists"
    assert str(settings(configuration, "route2").host[0]) == "tcp://10.1.2.3:2525"
    assert str(routes["lists.example"].deliver_to) == "&route1_queue"
    assert str(routes["host.example"].deliver_to) == "&route2_queue"
    assert str(routes["bad.example"].reject) == "550 5.7.1 gone"
    assert "/etc/postfix/transport:4 * smtp:: only domains and addresses" in text


def test_aliases_of_our_own_names_are_written_out_and_others_are_told() -> None:
    text = migrated(MAIN)
    assert "write these into the file of aliases: root: admin@example.net; postmaster: root" in text
    assert "addresses of other domains are not rewritten: info@example.com" in text
    assert "a table of the kind pcre is not read" in text


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("relayhost = smtp.example.net", "host tcp://smtp.example.net:25"),
        ("relayhost = smtp.example.net:submission", "host tcp://smtp.example.net:587"),
        ("relayhost = [192.0.2.1]", "host tcp://192.0.2.1:25"),
        ("relayhost = [ipv6:2001:db8::1]:2525", "host tcp://[2001:db8::1]:2525"),
        ("relayhost = [a.test]:465\nsmtp_tls_wrappermode = yes", "host tls://a.test:465"),
        ("relayhost = [a.test]\nsmtp_tls_security_level = may", "starttls offered"),
        ("relayhost = [a.test]\nsmtp_tls_security_level = none", "starttls no"),
        ("relayhost = [a.test]", "starttls offered"),
        ("relayhost = a b c", "host tls://smtp.example.org:465"),
        ("smtp_bind_address = 192.0.2.7", "local_ip 192.0.2.7"),
        ("smtp_helo_name = out.example.org", "hostname out.example.org"),
        ("smtp_connect_timeout = 30s", "connect_timeout 30s"),
        ("inet_protocols = ipv4", "force_ipv4 yes"),
        ("default_destination_rate_delay = 2s", "destination rate 1 2s"),
        ("smtp_destination_concurrency_limit = 7", "destination concurrency 7"),
        ("proxy_interfaces = 203.0.113.7", "own_addresses 203.0.113.7"),
        ("smtp_tls_CAfile = /etc/ssl/ca.pem", "root_ca /etc/ssl/ca.pem"),
        ("smtp_tls_mandatory_protocols = >=TLSv1.3", "protocols tls1.3"),
        ("smtp_tls_mandatory_protocols = !SSLv2, !SSLv3, !TLSv1, !TLSv1.1", "protocols tls1.2"),
        ("maximal_backoff_time = 4000s", "max_retry_time 4000s"),
        ("maximal_queue_lifetime = 1w", "expire 7d"),
        ("delay_warning_time = 0h", "delay_warning 0"),
        ("smtpd_tls_chain_files = /a.key, /a.pem", "tls /a.pem /a.key"),
        ("smtpd_tls_cert_file = /a.pem", "tls /a.pem /a.pem"),
        ("notify_classes = 2bounce\nmyorigin = example.org", "postmaster postmaster@example.org"),
        ("myorigin = $myhostname\nmyhostname = ${x?{a}:{b}}.example", "origin b.example"),
        ("myorigin = $(mydomain)", "origin example"),
    ],
)
def test_single_parameters(lines: str, expected: str) -> None:
    text = migrated(f"{lines}\n")
    loaded(text)
    assert expected in [line.strip() for line in text.splitlines()]


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        ("message_size_limit = 10", "max_message_size 10b: max_message_size: expected a size"),
        ("message_size_limit = 0", "has no counterpart"),
        ("myhostname = not a name", "hostname: expected a domain name"),
        ("smtpd_recipient_limit = 7", "max_recipients: expected"),
        ("relayhost =", "there is none: mail goes to the recipients' own servers"),
        ("myorigin = /etc/none", "/etc/none cannot be read: write its content"),
        ("alias_maps =", "there are none"),
        ("alias_maps = nis:mail.aliases", "no table in text: nis:mail.aliases"),
        ("alias_maps = hash:/etc/aliases, hash:/etc/more", "one file can be named"),
        ("smtp_tls_policy_maps = hash:/none", "/none cannot be read"),
        ("smtp_tls_policy_maps = inline:{}", "it has no entries"),
        ("smtp_sasl_password_maps = hash:/x", "there is no relayhost to log in to, or no password"),
        ("smtp_sasl_auth_enable = no", "auth off is the default"),
        ("default_destination_rate_delay = 0s", "no limit"),
        ("mailbox_command = /usr/bin/procmail", "mail is not given to programs"),
        ("smtpd_helo_restrictions = reject", "what may come in is said by the endpoints"),
        ("something_new = yes", "mailrider has nothing of that kind"),
        ("mydestination = x\n\\\n", "it is no parameter"),
    ],
)
def test_what_has_no_counterpart_has_a_reason(lines: str, reason: str) -> None:
    text = migrated(f"{lines}\n")
    loaded(text)
    assert reason in text


@pytest.mark.parametrize("value", ["\\", "x \\", '"', "{", "}", "$(x)", "\x00", "é\u2028", "#", "$" * 50, "a" * 3000])
@pytest.mark.parametrize("name", ["myhostname", "relayhost", "mynetworks", "alias_maps", "transport_maps", "new_thing"])
def test_whatever_stands_in_a_value_the_result_loads(name: str, value: str) -> None:
    loaded(migrated(f"{name} = {value}\nsmtp_sasl_auth_enable = yes\n", MASTER))


@pytest.mark.parametrize("said", ["gone\\", 'say \\"no\\"', "gone\x00"])
def test_a_refusal_whose_text_no_argument_can_be_is_one_without_a_text(said: str) -> None:
    text = migrated(f"transport_maps = inline:{{bad.example=error:{said}}}\n", MASTER)
    assert "destination bad.example {\n        reject 550 5.7.1\n" in text
    loaded(text)


def test_logins_need_a_certificate() -> None:
    text = migrated("myhostname = a.test\n", MASTER)
    assert "passwords go over TLS only, and main.cf names no certificate" in text
    assert not any("587" in each for each in endpoints(loaded(text)))


def test_every_parameter_in_the_tables_is_one_or_the_other() -> None:
    assert not REASONS.keys() & SIMPLE.keys()


# The files ------------------------------------------------------------------------------------------------------------


def test_values_name_each_other_and_never_without_end() -> None:
    given = {
        each.name: each for each in parse_main("a = $b x\nb = ${c}\nc = $$1 $(d)\nd = e\nloop = $loop y\n", "main.cf")
    }
    values = Values(given, {"z": "default"})
    assert values.of("a") == "$1 e x"
    assert values.of("none", "$z") == "default"
    assert values.of("loop").count("y") == 11
    assert values.expand("${a?set}${none:unset}${none?{x}:{y}}${a?{x $d}:{y}}") == "setunsetyx e"


def test_a_service_has_its_options() -> None:
    (service,) = parse_master("a inet n - y - - smtpd\n -o x=1 -ox=2\n -o { y = 3 4 } -v\n", "master.cf")
    assert [(each.name, each.value) for each in service.options] == [("x", "1"), ("x", "2"), ("y", "3 4")]


def test_tables_lists_and_times() -> None:
    assert parse_table("# c\na\tb c\n  d\nkey\n") == [(2, "a", "b c d"), (4, "key", "")]
    assert split_list("a, b\tc,,d") == ["a", "b", "c", "d"]
    assert [duration(each, "h") for each in ("5", "5d", "2w", "0", "x", "")] == ["5h", "5d", "14d", "0", "", ""]


# What is given as a configuration and is none -------------------------------------------------------------------------


@pytest.mark.parametrize("text", [MAIN, "myhostname=a.test\n", "# x\nsmtpd_tls_security_level = may\n"])
def test_a_main_cf_given_as_a_configuration_is_recognised(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        loads(text)
    (problem,) = caught.value.problems
    assert problem.message == "this is a main.cf of Postfix: mailrider migrate MAIN.CF [MASTER.CF] translates it"
    assert problem.line == text[: re.search(r"^\w+ ?=", text, re.MULTILINE).start()].count("\n") + 1  # type: ignore[union-attr]
