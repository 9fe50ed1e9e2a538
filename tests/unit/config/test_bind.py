"""Nodes to settings: what each directive takes, and what comes of it."""

from __future__ import annotations

import warnings
from datetime import timedelta
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest

from mailrider.config import Configuration, Globals, complete, load
from mailrider.config.settings import AUTO, LogFormat, LogPlace, default_runtime_dir, default_state_dir
from mailrider.delivery.settings import Concurrency, EightBit, LimitsSettings, Rate, RemoteSettings
from mailrider.delivery.smarthost_settings import SmarthostSettings
from mailrider.dns.servers import ServerAddress
from mailrider.dns.settings import DNSSettings
from mailrider.endpoint.settings import EndpointSettings
from mailrider.errors import ConfigError
from mailrider.model.address import Mailbox, ReversePath
from mailrider.model.domain import Domain
from mailrider.model.security import MXLevel, TLSLevel
from mailrider.net.settings import Curve, ServerTLS, TLSClientSettings, TLSVersion
from mailrider.policy.settings import DNSSEC, MTASTS, Dane, LocalPolicy, MXAuth, STSCache
from mailrider.reporting.settings import TLSRPTSettings
from mailrider.settings.directive import InvalidSetting, directives_of
from mailrider.settings.pipeline import PipelineSettings, RouteSettings, TargetRef
from mailrider.settings.socket_address import Scheme, SocketAddress
from mailrider.signing.settings import DKIMSettings, ModifySettings
from mailrider.smtp.sasl import Credentials
from tests.support.routes import pipeline_for
from tests.unit.config.reading import errors, read

MX = Domain("mx.example.org")


def remote(directives: str) -> RemoteSettings:
    """The settings of a target with these directives; paths begin at /s."""
    configuration = read(f"state_dir /s\nhostname mx.example.org\ntarget.remote out {{\n{directives}\n}}\n")
    settings = configuration.target("out").settings
    assert isinstance(settings, RemoteSettings)
    return settings


MINUTE = timedelta(minutes=1)

REMOTE: dict[str, tuple[str, object]] = {
    "hostname mx2.Example.org": ("hostname", Domain("mx2.example.org")),
    "hostname bücher.example": ("hostname", Domain("xn--bcher-kva.example")),
    "local_ip 192.0.2.1": ("local_ip", IPv4Address("192.0.2.1")),
    "local_ip 2001:db8::1": ("local_ip", IPv6Address("2001:db8::1")),
    "force_ipv4 yes": ("force_ipv4", True),
    "force_ipv4 TRUE": ("force_ipv4", True),
    "force_ipv4 on": ("force_ipv4", True),
    "force_ipv4 1": ("force_ipv4", True),
    "force_ipv4 no": ("force_ipv4", False),
    "force_ipv4 false": ("force_ipv4", False),
    "force_ipv4 off": ("force_ipv4", False),
    "force_ipv4 0": ("force_ipv4", False),
    "connect_timeout 1h5m": ("connect_timeout", 65 * MINUTE),
    "connect_timeout 1h 5m": ("connect_timeout", 65 * MINUTE),
    'connect_timeout "1h 5m"': ("connect_timeout", 65 * MINUTE),
    "command_timeout 150ms": ("command_timeout", timedelta(milliseconds=150)),
    "command_timeout 1.5s": ("command_timeout", timedelta(milliseconds=1500)),
    "submission_timeout 10m": ("submission_timeout", 10 * MINUTE),
    "debug yes": ("debug", True),
    "requiretls_override no": ("requiretls_override", False),
    "relaxed_requiretls no": ("relaxed_requiretls", False),
    "max_connections_per_host 3": ("max_connections_per_host", 3),
    "conn_reuse_limit 1": ("conn_reuse_limit", 1),
    "conn_max_idle_count 0": ("conn_max_idle_count", 0),
    "conn_max_idle_time 150": ("conn_max_idle_time", timedelta(seconds=150)),
    "conn_max_idle_time 2m30s": ("conn_max_idle_time", timedelta(seconds=150)),
    "conn_max_idle_time 0": ("conn_max_idle_time", timedelta(0)),
    "port 2525": ("port", 2525),
    "prohibited_addresses none": ("prohibited_addresses", ()),
    "prohibited_addresses 10.0.0.0/8 192.0.2.1": (
        "prohibited_addresses",
        (IPv4Network("10.0.0.0/8"), IPv4Network("192.0.2.1/32")),
    ),
    "tlsrpt no": ("tlsrpt", False),
    "eight_bit strict": ("eight_bit", EightBit.STRICT),
    "mx_auth { }": ("mx_auth", MXAuth()),
    "mx_auth off": ("mx_auth", MXAuth()),
    "mx_auth { dane { }\n dnssec { } }": ("mx_auth", MXAuth(dane=Dane(), dnssec=DNSSEC())),
    "mx_auth { mtasts }": ("mx_auth", MXAuth(mtasts=MTASTS(fs_dir="/s/mtasts_cache"))),
    "mx_auth { mtasts {\n cache ram\n https_port 8443\n root_ca ca.pem\n fs_dir StateDirectory/x } }": (
        "mx_auth",
        MXAuth(mtasts=MTASTS(cache=STSCache.RAM, https_port=8443, root_ca=["/s/ca.pem"], fs_dir="/s/x")),
    ),
    "mx_auth { local_policy }": ("mx_auth", MXAuth(local_policy=LocalPolicy())),
    "mx_auth { local_policy off }": ("mx_auth", MXAuth(local_policy=LocalPolicy.off())),
    "mx_auth { local_policy {\n min_tls_level authenticated\n min_mx_level mtasts } }": (
        "mx_auth",
        MXAuth(local_policy=LocalPolicy(min_tls_level=TLSLevel.AUTHENTICATED, min_mx_level=MXLevel.MTASTS)),
    ),
    "modify { dkim example.org s1 }": (
        "modify",
        ModifySettings(dkim=[DKIMSettings.of(["example.org"], "s1")], state_dir="/s"),
    ),
    "limits { }": ("limits", LimitsSettings()),
    "limits { all rate 20\n all rate 500 1m\n destination concurrency 10\n source rate 5 1h 5m\n ip rate 1 1d }": (
        "limits",
        LimitsSettings(
            all=[Rate(20), Rate(500, MINUTE)],
            destination=[Concurrency(10)],
            source=[Rate(5, 65 * MINUTE)],
            ip=[Rate(1, timedelta(days=1))],
        ),
    ),
    "tls_client { }": ("tls_client", TLSClientSettings()),
    "tls_client { protocols tls1.3 }": ("tls_client", TLSClientSettings(protocols=("tls1.3", "tls1.3"))),
    "tls_client { protocols tls1.0 tls1.2 }": (
        "tls_client",
        TLSClientSettings(protocols=(TLSVersion.TLS1_0, TLSVersion.TLS1_2)),
    ),
    "tls_client {\n ciphers AES128-GCM-SHA256 ECDHE+AESGCM\n curves X25519 p256\n root_ca /a b }": (
        "tls_client",
        TLSClientSettings(
            ciphers=("AES128-GCM-SHA256", "ECDHE+AESGCM"),
            curves=(Curve.X25519, Curve.P256),
            root_ca=(Path("/a"), Path("/s/b")),
        ),
    ),
    "tls_client {\n cert StateDirectory/c.pem\n key k.pem }": (
        "tls_client",
        TLSClientSettings(cert="/s/c.pem", key="/s/k.pem"),
    ),
}


@pytest.mark.parametrize("directive", REMOTE)
def test_target_remote(directive: str) -> None:
    field, expected = REMOTE[directive]
    assert getattr(remote(directive), field) == expected


def test_every_directive_of_target_remote_is_tried_here() -> None:
    known = {name for name, each in directives_of(RemoteSettings).items() if not each.only_global}
    assert {field for field, _ in REMOTE.values()} == known


def test_the_defaults_of_target_remote() -> None:
    settings = remote("")
    assert settings == RemoteSettings(
        hostname=MX,
        debug=False,
        tls_client=TLSClientSettings(),
        own_addresses=(),
        dns=DNSSettings(),
        mx_auth=MXAuth(is_stated=False),
    )
    assert settings.connect_timeout == 5 * MINUTE
    assert settings.command_timeout == 5 * MINUTE
    assert settings.submission_timeout == 12 * MINUTE
    assert settings.conn_max_idle_time == timedelta(seconds=150)
    assert (settings.conn_reuse_limit, settings.conn_max_idle_count, settings.port) == (10, 10, 25)
    assert settings.requiretls_override
    assert settings.relaxed_requiretls
    assert (settings.limits, settings.local_ip) == (None, None)
    assert settings.mx_auth == MXAuth(is_stated=False)


GLOBALS: dict[str, tuple[str, object]] = {
    'tlsrpt {\norganization "Example Inc."\ncontact tls@example.org\nthrough &q\n}\ntarget.queue q { target &out }\n'
    "target.remote out { hostname mx.example.org }": (
        "tlsrpt",
        TLSRPTSettings(organization="Example Inc.", contact="tls@example.org", through=TargetRef("q")),
    ),
    "hostname mx.example.org": ("hostname", MX),
    "state_dir /var/x": ("state_dir", Path("/var/x")),
    "state_dir state": ("state_dir", Path("/etc/mailrider/state")),
    "state_dir /s\nruntime_dir run": ("runtime_dir", Path("/s/run")),
    "autogenerated_msg_domain example.org": ("autogenerated_msg_domain", Domain("example.org")),
    "origin example.org": ("origin", Domain("example.org")),
    "aliases /etc/aliases": ("aliases", Path("/etc/aliases")),
    "postmaster admin@example.org": ("postmaster", Mailbox.parse("admin@example.org")),
    "hostname mx.example.org\n": ("autogenerated_msg_domain", MX),
    "tls_client { protocols tls1.3 }": ("tls_client", TLSClientSettings(protocols=["tls1.3"])),
    "state_dir /s\ntls a.pem /b.pem": ("tls", ServerTLS(Path("/s/a.pem"), Path("/b.pem"))),
    "tls file /a.pem /b.pem": ("tls", ServerTLS(Path("/a.pem"), Path("/b.pem"))),
    "tls off": ("tls", ServerTLS()),
    "state_dir /s\ntls a.pem b.pem { protocols tls1.0 }": (
        "tls",
        ServerTLS(Path("/s/a.pem"), Path("/s/b.pem"), (TLSVersion.TLS1_0, TLSVersion.TLS1_3)),
    ),
    "openmetrics tcp://[::1]:9749": ("openmetrics", SocketAddress(Scheme.TCP, IPv6Address("::1"), 9749)),
    "workers 4": ("workers", 4),
    "workers auto": ("workers", AUTO),
    "log file /var/log/x json": ("log", LogPlace(LogFormat.JSON, Path("/var/log/x"))),
    "log file /var/log/x": ("log", LogPlace(LogFormat.TEXT, Path("/var/log/x"))),
    "log json": ("log", LogPlace(LogFormat.JSON)),
    "log stderr": ("log", LogPlace(LogFormat.TEXT)),
    "debug yes": ("debug", True),
    "own_addresses 192.0.2.1\nown_addresses 192.0.2.2 ::1": (
        "own_addresses",
        (IPv4Address("192.0.2.1"), IPv4Address("192.0.2.2"), IPv6Address("::1")),
    ),
    "dns {\n server 127.0.0.1\n server 192.0.2.1:5353 [::1]:53\n timeout 1s\n attempts 1\n cache 0\n}": (
        "dns",
        DNSSettings(
            server=[
                ServerAddress(IPv4Address("127.0.0.1")),
                ServerAddress(IPv4Address("192.0.2.1"), 5353),
                ServerAddress(IPv6Address("::1")),
            ],
            timeout=1,
            attempts=1,
            cache=0,
        ),
    ),
}


@pytest.mark.parametrize("text", GLOBALS)
def test_globals(text: str) -> None:
    field, expected = GLOBALS[text]
    assert getattr(read(text).globals, field) == expected


def test_every_global_directive_is_tried_here() -> None:
    assert {field for field, _ in GLOBALS.values()} == set(directives_of(Globals))


@pytest.mark.parametrize("given", ["0", "257", "many", "-1"])
def test_workers_are_a_number_within_bounds_or_auto(given: str) -> None:
    assert errors(f"workers {given}") == [f'1:9 workers: expected a whole number from 1 to 256, or auto, not "{given}"']


def test_the_defaults_of_the_globals() -> None:
    settings = read("").globals
    assert settings == Globals()
    assert settings.dns == DNSSettings(server=(), timeout=timedelta(seconds=5), attempts=3, cache=10_000)
    assert settings.tls_client.protocols == (TLSVersion.TLS1_2, TLSVersion.TLS1_3)
    assert (settings.state_dir, settings.runtime_dir) == (default_state_dir(), default_runtime_dir())


@pytest.mark.parametrize(("user", "state", "runtime"), [(0, "/var/lib/mailrider", "/run/mailrider"), (1000, "", "")])
def test_where_state_is_kept(user: int, state: str, runtime: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: user)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/.local/state")
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/1000")
    assert default_state_dir() == Path(state or "/home/u/.local/state/mailrider")
    assert default_runtime_dir() == Path(runtime or "/run/user/1000/mailrider")


def test_the_folders_of_the_systems_configuration_are_the_systems_whoever_reads_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mailrider.conf").write_text("hostname a.example\nmx_auth x {\nmtasts {\nfs_dir cache\n}\n}\n")
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    own = load(tmp_path / "mailrider.conf").globals
    assert own.state_dir != Path("/var/lib/mailrider")
    monkeypatch.setattr("mailrider.config.loader.SYSTEM_CONFIG", tmp_path / "mailrider.conf")
    monkeypatch.chdir(tmp_path)
    found = load("mailrider.conf")
    assert (found.globals.state_dir, found.globals.runtime_dir) == (Path("/var/lib/mailrider"), Path("/run/mailrider"))
    assert found.instances["x"].settings.mtasts.fs_dir == Path("/var/lib/mailrider/cache")  # type: ignore[attr-defined]
    (tmp_path / "mailrider.conf").write_text("hostname a.example\nstate_dir s\nruntime_dir /r\n")
    given = load("mailrider.conf").globals
    assert (given.state_dir, given.runtime_dir) == (tmp_path / "s", Path("/r"))


def test_who_has_no_runtime_folder_of_his_own_has_one_in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setenv("XDG_STATE_HOME", "/home/u/.local/state")

    def none(_: str) -> str:
        warnings.warn("there is none", UserWarning, stacklevel=1)
        return "/tmp/anybodys"

    monkeypatch.setattr("platformdirs.user_runtime_dir", none)
    assert default_runtime_dir() == Path("/home/u/.local/state/mailrider/run")


# --- Inheritance ---------------------------------------------------------------------------------


def test_a_target_takes_from_the_globals_what_it_does_not_say() -> None:
    settings = (
        read(
            """
        target.remote out { }
        debug yes
        own_addresses 192.0.2.1
        tls_client { protocols tls1.3 }
        dns { server 127.0.0.1 }
        hostname mx.example.org
        """
        )
        .target("out")
        .settings
    )
    assert settings == RemoteSettings(
        hostname="mx.example.org",
        debug=True,
        own_addresses=["192.0.2.1"],
        tls_client=TLSClientSettings(protocols=["tls1.3"]),
        dns=DNSSettings(server=["127.0.0.1"]),
        mx_auth=MXAuth(is_stated=False),
    )


def test_what_a_target_says_goes_before_the_globals() -> None:
    text = "hostname a.example\ndebug yes\ntarget.remote out {\n hostname b.example\n debug no\n}"
    settings = read(text).target("out").settings
    assert isinstance(settings, RemoteSettings)
    assert (settings.hostname, settings.debug) == (Domain("b.example"), False)


def test_tls_client_in_a_target_replaces_the_global_one_as_a_whole() -> None:
    text = "hostname a.example\ntls_client {\n root_ca /a\n}\ntarget.remote out {\n tls_client { curves p256 }\n}"
    settings = read(text).target("out").settings
    assert isinstance(settings, RemoteSettings)
    assert settings.tls_client == TLSClientSettings(curves=["p256"])


def test_complete_is_there_for_programs_too() -> None:
    given = RemoteSettings(hostname="b.example", mx_auth=[MTASTS()])
    completed = complete(given, Globals(hostname="a.example", state_dir="/s", debug=True))
    assert (completed.hostname, completed.debug) == (Domain("b.example"), True)
    assert completed.mx_auth == MXAuth(mtasts=MTASTS(fs_dir="/s/mtasts_cache"))
    assert complete(Dane(), Globals()) == Dane()


def test_a_hostname_is_required_somewhere() -> None:
    with pytest.raises(InvalidSetting) as caught:
        complete(RemoteSettings(), Globals())
    assert str(caught.value) == "hostname: it is required, here or at the top level"


# --- Instances and references --------------------------------------------------------------------


def shared() -> Configuration:
    return read(
        """
        hostname mx.example.org
        deliver_to &b
        target.remote a { limits &few
            mx_auth &strict }
        target.remote b { limits &few
            mx_auth &strict }
        limits few { all concurrency 1 }
        mx_auth strict { dane }
        target.remote { limits { all concurrency 1 } }
        deliver_to remote { port 26 }
        deliver_to target.remote { port 27 }
        """
    )


def test_instances_by_their_names() -> None:
    configuration = shared()
    kinds = {name: instance.kind for name, instance in configuration.instances.items()}
    assert kinds == {
        "a": "target.remote",
        "b": "target.remote",
        "few": "limits",
        "strict": "mx_auth",
        "remote": "target.remote",
    }
    assert list(configuration.targets) == ["a", "b", "remote"]
    assert configuration.target("a") is configuration.instances["a"]
    assert str(configuration.target("a").position) == "mailrider.conf:4:9"
    assert configuration.target("a").label == "target.remote a"


def test_a_reference_is_the_block_that_it_names_wherever_that_stands() -> None:
    a, b = (shared().targets[name].settings for name in "ab")
    assert isinstance(a, RemoteSettings)
    assert isinstance(b, RemoteSettings)
    assert a.limits == b.limits == LimitsSettings(all=[Concurrency(1)], name="few")
    assert a.mx_auth == MXAuth(dane=Dane())


def test_a_block_in_a_target_is_its_own() -> None:
    settings = shared().target("remote").settings
    assert isinstance(settings, RemoteSettings)
    assert settings.limits == LimitsSettings(all=[Concurrency(1)], name=None)


def test_what_the_top_level_delivers_to() -> None:
    configuration = shared()
    named, *inline = configuration.deliver_to
    assert named is configuration.target("b")
    assert [(each.kind, each.name, each.label) for each in inline] == [("target.remote", None, "target.remote")] * 2
    assert [getattr(each.settings, "port", None) for each in inline] == [26, 27]
    assert [getattr(each.settings, "hostname", None) for each in inline] == [MX, MX]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("stricts", 'no target is named "stricts"; there are: a, b, remote'),
        ("remot", 'no target is named "remot"; did you mean "remote"?'),
        ("strict", 'no target is named "strict"; there are: a, b, remote'),
    ],
)
def test_a_target_that_is_not_there(name: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        shared().target(name)
    assert str(caught.value) == message


def test_a_target_where_there_is_none() -> None:
    with pytest.raises(ConfigError, match=r'^no target is named "a"; there are none$'):
        read("").target("a")


# Arguments that are more than words -----------------------------------------------------------------------------------

SMARTHOST = "hostname a.b\ntarget.smtp smart {{\nhost tls://smtp.test:465\nauth {auth}\n}}"


@pytest.mark.parametrize("auth", ['plain "a user" "pass  word"', "plain {env:USER} {env:PASSWORD}"])
def test_a_quoted_argument_is_one_whatever_is_in_it(auth: str) -> None:
    text = SMARTHOST.format(auth=auth)
    settings = read(text, environment={"USER": "a user", "PASSWORD": "pass  word"}).target("smart").settings
    assert isinstance(settings, SmarthostSettings)
    assert settings.auth == Credentials("a user", "pass  word")
    assert read('tls "/my certs/a.pem" "/my certs/a.key"').globals.tls == ServerTLS(
        Path("/my certs/a.pem"), Path("/my certs/a.key")
    )


def test_a_dot_behind_the_domain_of_an_address_is_named_as_what_is_wrong() -> None:
    (error,) = errors("postmaster x@a.test.\n")
    assert error.endswith('expected a mail address, not "x@a.test.": a domain in an address does not end in a dot')


PIPELINE = "hostname a.test\ntarget.remote r {{\n}}\nsmtp tcp://127.0.0.1:2525 {{\n{}\n}}\n"


@pytest.mark.parametrize("code", ["5_50", "+550", "0550", "\N{FULLWIDTH DIGIT FIVE}50"])
def test_a_code_of_a_reply_has_three_plain_digits(code: str) -> None:
    (error,) = errors(PIPELINE.format(f"reject {code} 5.7.1 No"))
    assert error.startswith("5:8 reject: expected a reply such as 550 5.7.1 No")


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("destination a.test {\nreject\n}\ndestination b.test A.Test {\nreject\n}", '8:20 destination: "A.Test"'),
        ("destination bücher.test {\nreject\n}\ndestination xn--bcher-kva.test {\nreject\n}", "8:13 destination"),
        ("destination x@a.test {\nreject\n}\ndestination X@A.test {\nreject\n}", "8:13 destination"),
        ("destination a.test a.test {\nreject\n}", "5:20 destination"),
        ("source a.test {\nreject\n}\nsource A.TEST {\nreject\n}", "8:8 source"),
        ('source "" {\nreject\n}\nsource "" {\nreject\n}', "8:8 source"),
        ("destination a.test {\n}", "5:1 destination: the block is empty"),
        ("default_destination {\n}", "5:1 default_destination: the block is empty"),
        ("source a.test {\n}", "5:1 source: the block is empty"),
        ('destination "" {\nreject\n}', "5:13 destination: expected a domain or a mail address"),
        (
            "destination x@a.test. {\nreject\n}",
            '5:13 destination: expected a mail address, not "x@a.test.": a domain in an address does not end in a dot',
        ),
    ],
)
def test_only_one_block_is_for_a_domain_and_none_is_empty(text: str, told: str) -> None:
    (error,) = errors(PIPELINE.format(text))
    assert error.startswith(told)


def test_the_null_path_is_a_sender_of_its_own() -> None:
    configuration = read(PIPELINE.format('source "" {\nreject\n}\ndefault_source {\ndeliver_to &r\n}'))
    settings = configuration.endpoints[0].settings
    assert isinstance(settings, EndpointSettings)
    assert pipeline_for(settings, ReversePath(None)).reject is not None
    assert pipeline_for(settings, ReversePath.parse("a@b.test")).reject is None


def test_a_program_that_makes_two_blocks_for_a_domain_is_told() -> None:
    route = RouteSettings(reject="")
    with pytest.raises(InvalidSetting, match="two blocks"):
        PipelineSettings(destination=[(["a.test"], route), (["A.test"], route)])


def test_ciphers_that_only_openssl_can_refuse_are_told_at_their_line() -> None:
    text = "hostname a.test\ntls_client {\nciphers NONSENSE\n}\ntarget.remote r {\n}\ndeliver_to &r\n"
    (error,) = errors(text)
    assert error.startswith("3:9 ciphers: OpenSSL does not take 'NONSENSE'")


def test_a_block_that_lacks_what_it_needs_is_told_at_its_name() -> None:
    assert errors("hostname a.b\ntarget.smtp x {\n}") == [
        "2:1 target.smtp: host: expected at least one server, such as tls://smtp.example.org:465"
    ]


@pytest.mark.parametrize(
    "auth",
    [
        "login user {env:PASSWORD}",
        "plain user {env:PASSWORD} x",
    ],
)
def test_a_password_is_never_repeated_by_an_error(auth: str) -> None:
    told = errors(SMARTHOST.format(auth=auth), environment={"PASSWORD": "s3cret"})
    assert told == ["4:6 auth: expected plain USER PASSWORD, or off"]
