"""A main.cf and master.cf of Postfix as a configuration of ours.

Each line of them is translated, or stands in a comment that says why not. Pure but for `read`, which gives the text of
a file that they name, or nothing. What a table holds of passwords is never written: `auth` names a file instead.
"""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from mailrider.config import loads
from mailrider.endpoint.trust import is_private
from mailrider.migrate.draft import Draft, DraftBlock, comment, quoted, refused
from mailrider.migrate.postfix_files import Parameter, Values, parse_main, parse_master, parse_table, split_list
from mailrider.migrate.postfix_table import SIMPLE, reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from ipaddress import IPv4Network, IPv6Network

    from mailrider.migrate.postfix_files import PostfixService

MAX_ENTRIES: Final = 500  # of a table that are translated
PASSWORD_FILE: Final = "smtp_password"  # noqa: S105 # the name of the file that one stands in
_TEXT_TABLES: Final = frozenset({"hash", "texthash", "btree", "lmdb", "cdb", "dbm", "sdbm"})
_WORLD: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 # as the other program had it
_MAPPED_LOOPBACK: Final = {4: ip_network("127.0.0.0/8"), 6: ip_network("::ffff:127.0.0.0/104")}
_HOST = re.compile(r"(?:\[(?P<literal>[^\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[A-Za-z0-9-]+))?")
_PORTS: Final = {"smtp": 25, "submission": 587, "submissions": 465, "smtps": 465}
_MX_AUTH: Final = "mx_auth {\n    mtasts\n    dane\n    dnssec%s\n}"
_LEVELS: Final = {
    "none": "",
    "may": "",
    "encrypt": "\n    local_policy {\n        min_tls_level encrypted\n    }",
    "dane": "",
    "dane-only": "\n    local_policy {\n        min_tls_level authenticated\n    }",
    "verify": "\n    local_policy {\n        min_tls_level authenticated\n    }",
    "secure": "\n    local_policy {\n        min_tls_level authenticated\n    }",
    "fingerprint": "\n    local_policy {\n        min_tls_level authenticated\n    }",
}


def migrate(
    main: str,
    main_name: str,
    master: str | None,
    master_name: str,
    read: Callable[[str], str | None],
    own_name: str,
) -> str:
    """The text of the configuration. `own_name`: the host's name, where main.cf does not say it."""
    return _Migration(
        parse_main(main, main_name), None if master is None else parse_master(master, master_name), read, own_name
    ).text(main_name, master_name if master is not None else "")


@dataclass(slots=True)
class _Migration:
    parameters: list[Parameter]
    services: list[PostfixService] | None
    read: Callable[[str], str | None]
    own_name: str
    draft: Draft = field(default_factory=Draft)
    values: Values = field(init=False)
    given: dict[str, Parameter] = field(init=False)
    routes: list[tuple[str, str]] = field(default_factory=list)  # destinations of all submission endpoints
    queue: str = "outqueue"

    def __post_init__(self) -> None:
        self.given = {each.name: each for each in self.parameters if each.name}
        name = self.given["myhostname"].value if "myhostname" in self.given else self.own_name
        domain = name.partition(".")[2] or name
        self.values = Values(
            self.given,
            {
                "myhostname": name,
                "mydomain": domain,
                "myorigin": "$myhostname",
                "config_directory": "/etc/postfix",
                "mydestination": "$myhostname, localhost.$mydomain, localhost",
            },
        )

    def text(self, main_name: str, master_name: str) -> str:
        """All of it, in the order in which one reads it."""
        for each in self.parameters:
            if each.name and self.given[each.name] is not each:
                self.draft.note(each, f"it is given again in line {self.given[each.name].line}, which counts")
            elif not each.name:
                self.draft.note(each, "it is no parameter")
        top = self.draft.block("top")
        self._top(top)
        tls_client = self.draft.block("tls_client", "tls_client")
        self._simple("tls_client", tls_client)
        if not tls_client.lines:
            self.draft.blocks.remove(tls_client)
        self._way_out()
        self._services()
        for each in self.parameters:
            if not self.draft.is_seen(each):
                self.draft.note(each, reason(each.name))
        sources = " and ".join(filter(None, (main_name, master_name)))
        head = (
            f"# Written by mailrider migrate from {comment(sources)}. Read it once before you use it:\n"
            "# what could not be translated stands at the end, with the reason. Then: mailrider check"
        )
        return _that_loads(self.draft.text(head))

    # --- The top level --------------------------------------------------------------------------

    def _top(self, top: DraftBlock) -> None:
        draft, given = self.draft, self.given
        if not draft.put(top, f"hostname {quoted(self.values.of('myhostname'))}", given.get("myhostname")):
            draft.add(top, "hostname localhost", None, "The name of this server, which Postfix took from the system.")
        if "mydomain" in given:
            draft.note(given["mydomain"], "domains are written where they are used")
        self._origin(top)
        self._certificate(top)
        if "alias_maps" in given:
            self._aliases(top, given["alias_maps"])
        self._virtual_aliases()
        self._postmaster(top)
        self._simple("top", top)

    def _origin(self, top: DraftBlock) -> None:
        parameter = self.given.get("myorigin")
        origin = self.values.of("myorigin")
        if parameter is not None and origin.startswith("/"):
            text = self.read(origin)
            if text is None:
                self.draft.note(parameter, f"{origin} cannot be read: write its content, origin DOMAIN")
                return
            origin = text.strip()
        if parameter is not None:
            self.draft.put(top, f"origin {quoted(origin)}", parameter)

    @property
    def origin(self) -> str:
        """The domain of addresses without one."""
        origin = self.values.of("myorigin")
        return (self.read(origin) or "").strip() if origin.startswith("/") else origin

    def _certificate(self, top: DraftBlock) -> None:
        given, values = self.given, self.values
        chain = split_list(values.of("smtpd_tls_chain_files"))
        certificate, key = values.of("smtpd_tls_cert_file"), values.of("smtpd_tls_key_file")
        if chain:
            pair = (chain[-1], chain[0]) if len(chain) > 1 else (chain[0], chain[0])
            self.draft.put(
                top,
                f"tls {quoted(pair[0])} {quoted(pair[1])}",
                given["smtpd_tls_chain_files"],
                "The chain first, then the key." if len(chain) > 1 else "",
            )
        elif certificate and certificate != "none":
            self.draft.put(
                top, f"tls {quoted(certificate)} {quoted(key or certificate)}", given.get("smtpd_tls_cert_file")
            )
        else:
            return
        for name in ("smtpd_tls_key_file", "smtpd_tls_cert_file"):
            if name in given and not self.draft.is_seen(given[name]):
                self.draft.note(given[name], "it stands in tls CERT KEY")

    @property
    def has_certificate(self) -> bool:
        return any(line.startswith("tls ") for _, line in self.draft.blocks[0].lines)

    def _aliases(self, top: DraftBlock, parameter: Parameter) -> None:
        tables = split_list(self.values.of("alias_maps"))
        files = [path for kind, _, path in (each.partition(":") for each in tables) if kind in _TEXT_TABLES and path]
        if files and self.draft.put(top, f"aliases {quoted(files[0])}", parameter):
            others = [each for each in tables if not each.endswith(files[0])]
            if others:
                self.draft.note(parameter, f"one file can be named, and it is text: not {', '.join(others)}")
        elif tables:
            self.draft.note(parameter, f"no table in text: {', '.join(tables)}")
        else:
            self.draft.note(parameter, "there are none")

    def _virtual_aliases(self) -> None:
        """Those of our own names can be aliases; others would rewrite addresses."""
        parameter = self.given.get("virtual_alias_maps")
        if parameter is None:
            return
        entries, problem = self._table("virtual_alias_maps")
        ours = {self.origin, *split_list(self.values.of("mydestination"))}
        names = {key.partition("@")[0]: value for _, key, value in entries if key.partition("@")[2] in {"", *ours}}
        others = [key for _, key, _ in entries if key.partition("@")[2] not in {"", *ours}]
        text = [problem] if problem else []
        if names:
            text.append("write these into the file of aliases: " + "; ".join(f"{a}: {b}" for a, b in names.items()))
        if others or not entries:
            text.append(f"addresses of other domains are not rewritten: {', '.join(others[:20])}".rstrip(": "))
        self.draft.note(parameter, ". ".join(text))

    def _postmaster(self, top: DraftBlock) -> None:
        classes = self.given.get("notify_classes")
        recipient = self.given.get("2bounce_notice_recipient")
        if classes is None or "2bounce" not in split_list(classes.value):
            return
        address = self.values.of("2bounce_notice_recipient", "postmaster")
        address = address if "@" in address else f"{address}@{self.origin}"
        self.draft.put(top, f"postmaster {quoted(address)}", classes)
        if recipient is not None:
            self.draft.note(recipient, "it stands in postmaster")

    def _simple(self, kind: str, block: DraftBlock, *, trial: str = "", silent: bool = False) -> None:
        """The parameters that become one line of that kind of block. `silent`: they were told already."""
        for name, simple in SIMPLE.items():
            parameter = self.given.get(name)
            if simple.kind != kind or parameter is None:
                continue
            line = simple.write(self.values.of(name))
            if silent:
                if line and not refused(trial or block.kind, line):
                    self.draft.add(block, line)
            elif not line:
                self.draft.note(parameter, f"{comment(self.values.of(name))!r} has no counterpart")
            else:
                self.draft.put(block, line, parameter, kind=trial)

    # --- Tables ---------------------------------------------------------------------------------

    def _table(self, name: str) -> tuple[list[tuple[str, str, str]], str]:
        """The entries (where, key, value) of the tables that a parameter names, and what could not be read."""
        found: list[tuple[str, str, str]] = []
        problems: list[str] = []
        for table in _tables(self.values.of(name)):
            kind, _, where = table.removeprefix("proxy:").partition(":")
            if kind == "inline":
                pairs = re.findall(r"([^\s{},=]+)\s*=\s*([^{},]+)", where)
                found += [(name, key, value.strip()) for key, value in pairs]
            elif kind in _TEXT_TABLES:
                text = self.read(where)
                if text is None:
                    problems.append(f"{where} cannot be read")
                else:
                    found += [(f"{where}:{line}", key, value) for line, key, value in parse_table(text)]
            else:
                problems.append(f"a table of the kind {kind} is not read")
        if len(found) > MAX_ENTRIES:
            problems.append(f"only the first {MAX_ENTRIES} entries were read")
        return found[:MAX_ENTRIES], "; ".join(problems)

    # --- The way out ----------------------------------------------------------------------------

    def _way_out(self) -> None:
        """The targets and the queues in front of them."""
        relay = self.values.of("relayhost")
        if relay:
            target = self._smarthost("relay", relay, self.given["relayhost"], with_login=True)
        else:
            if "relayhost" in self.given:
                self.draft.note(self.given["relayhost"], "there is none: mail goes to the recipients' own servers")
            target = self._remote("outbound", self._level(), self.given.get("smtp_tls_security_level"))
        self._queue(self.queue, target, first=True)
        self._tls_policies(relay)
        self._transports()
        self._sasl_passwords(relay)

    def _queue(self, name: str, target: str, *, first: bool = False) -> None:
        block = self.draft.block("target.queue", f"target.queue {name}")
        self.draft.add(block, f"target &{target}")
        self._simple("target.queue", block, silent=not first)

    def _level(self) -> str:
        level = self.values.of("smtp_tls_security_level")
        return level if level in _LEVELS else "may"

    def _remote(self, name: str, level: str, parameter: Parameter | None, *, first: bool = True) -> str:
        block = self.draft.block("target.remote", f"target.remote {name}")
        if level == "none" or (level == "may" and parameter is None):
            remark = "What the recipients' domains ask for is kept, which Postfix did not do by itself."
        else:
            remark = ""
        self.draft.add(block, _MX_AUTH % _LEVELS[level], parameter, *([remark] if remark else []))
        limits = self._limits(first=first)
        if limits:
            block.lines.append(limits)
        self._simple("target", block, trial="target.remote", silent=not first)
        protocols = self.given.get("inet_protocols")
        if protocols is not None and self.values.of("inet_protocols") in ("ipv4", "ipv4 "):
            self.draft.add(block, "force_ipv4 yes", protocols if first else None)
        return name

    def _limits(self, *, first: bool) -> tuple[list[str], str] | None:
        """`limits { }` of a target; Postfix counts for each destination."""
        inner: list[str] = []
        comments: list[str] = []
        for names, form in (
            (("smtp_destination_concurrency_limit", "default_destination_concurrency_limit"), "concurrency {}"),
            (("smtp_destination_rate_delay", "default_destination_rate_delay"), "rate 1 {}"),
        ):
            parameter = next((self.given[each] for each in names if each in self.given), None)
            if parameter is None:
                continue
            value = self.values.of(parameter.name)
            value = value if not form.startswith("rate") or value[-1:].isalpha() else f"{value}s"
            line = f"destination {form.format(value)}"
            if value.strip("s") == "0" or refused("target.remote", f"limits {{\n{line}\n}}"):
                if first:
                    self.draft.note(parameter, "no limit")
                continue
            inner.append(f"    {line}")
            if first:
                comments.append(f"{parameter.where} {parameter.name} = {comment(parameter.value)}")
                self.draft.seen(parameter)
        return (comments, "limits {\n" + "\n".join(inner) + "\n}") if inner else None

    def _smarthost(self, name: str, host: str, parameter: Parameter | None, *, with_login: bool) -> str:
        """A `target.smtp`; `host` as Postfix writes it: `[name]:port`, `name`, `name:port`."""
        block = self.draft.block("target.smtp", f"target.smtp {name}")
        address, has_brackets = _address(host)
        scheme = "tls" if with_login and self.values.of("smtp_tls_wrappermode") == "yes" else "tcp"
        remarks = [] if has_brackets else ["Postfix asked for the MX hosts of that name; here it is the host itself."]
        if not self.draft.put(block, f"host {scheme}://{address}", parameter, *remarks, kind="host"):
            self.draft.add(block, "host tls://smtp.example.org:465", None, "The server has to be named here.")
        if scheme == "tls" and "smtp_tls_wrappermode" in self.given:
            self.draft.note(self.given["smtp_tls_wrappermode"], "it stands in host tls://")
        self._smarthost_security(block, with_login=with_login)
        if with_login and (limits := self._limits(first=True)):
            block.lines.append(limits)
        self._simple("target", block, trial="target.smtp", silent=not with_login)
        return name

    def _smarthost_security(self, block: DraftBlock, *, with_login: bool) -> None:
        parameter = self.given.get("smtp_tls_security_level")
        level = self._level()
        logs_in = with_login and self.values.of("smtp_sasl_auth_enable") == "yes"
        if parameter is None or not with_login:
            if not logs_in:
                self.draft.add(
                    block, "starttls offered\nmin_tls_level none", None, "As in Postfix: TLS if there is some."
                )
            return
        if level in ("verify", "secure", "dane-only", "dane", "fingerprint"):
            self.draft.note(parameter, "starttls required and min_tls_level authenticated are the default here")
        elif logs_in:
            text = "min_tls_level encrypted" if level == "encrypt" else ""
            if text:
                self.draft.add(block, text, parameter, "Better without: then the certificate has to be right.")
            else:
                self.draft.note(parameter, "a password goes over verified TLS only (starttls required is the default)")
        elif level == "encrypt":
            self.draft.add(block, "min_tls_level encrypted", parameter)
        elif level == "none":
            self.draft.add(block, "starttls no\nmin_tls_level none", parameter)
        else:
            self.draft.add(block, "starttls offered\nmin_tls_level none", parameter)

    def _sasl_passwords(self, relay: str) -> None:
        """`auth` of the smarthost: its user by name, its password in a file."""
        enabled, maps = self.given.get("smtp_sasl_auth_enable"), self.given.get("smtp_sasl_password_maps")
        if enabled is not None and self.values.of("smtp_sasl_auth_enable") != "yes":
            self.draft.note(enabled, "auth off is the default")
            enabled = None
        block = next((each for each in self.draft.blocks if each.head == "target.smtp relay"), None)
        if maps is None or enabled is None or block is None:
            for each in (maps, enabled):
                if each is not None:
                    self.draft.note(
                        each, "there is no relayhost to log in to, or no passwords: write auth in target.smtp"
                    )
            return
        entries, problem = self._table("smtp_sasl_password_maps")
        user = next((value.partition(":")[0] for _, key, value in entries if _same_host(key, relay)), "")
        told = [f"Write the password into a file {PASSWORD_FILE} beside this one, readable by the daemon's user alone."]
        if not user:
            told.append(f"The user name is not known{f': {problem}' if problem else ''}: write it in place of USER.")
        line = f"auth plain {quoted(user or 'USER')} {{file:{PASSWORD_FILE}}}"
        if self.draft.put(block, line, maps, *told):
            self.draft.note(enabled, "it stands in auth")

    def _tls_policies(self, relay: str) -> None:
        """A target and a queue for each level that some domains have of their own."""
        parameter = self.given.get("smtp_tls_policy_maps")
        if parameter is None:
            return
        entries, problem = self._table("smtp_tls_policy_maps")
        by_level: dict[str, list[str]] = {}
        left: list[str] = [problem] if problem else []
        for where, key, value in entries:
            level = value.partition(" ")[0]
            if relay:
                left.append(f"{where} {key} {value}: all mail goes to the relayhost: see min_tls_level there")
            elif level not in _LEVELS or refused("destination", f"destination {quoted(key)}"):
                left.append(f"{where} {key} {value}: only whole domains and the levels of Postfix are translated")
            else:
                if len(value.split()) > 1:
                    left.append(f"{where} {key} {value}: what stands behind the level is not kept")
                by_level.setdefault(level, []).append(key)
        for level, domains in by_level.items():
            name = level.replace("-", "_")
            self._remote(f"outbound_{name}", level, None, first=False)
            self._queue(f"outqueue_{name}", f"outbound_{name}")
            self.routes.append((" ".join(map(quoted, domains)), f"deliver_to &outqueue_{name}"))
        if by_level:
            left.insert(0, f"it stands in destination {{ }} of the endpoints ({', '.join(by_level)})")
        self.draft.note(parameter, ". ".join(left) or "it has no entries")

    def _transports(self) -> None:
        parameter = self.given.get("transport_maps")
        if parameter is None:
            return
        entries, problem = self._table("transport_maps")
        left: list[str] = [problem] if problem else []
        routed = [route for domains, _ in self.routes for route in domains.split()]
        for number, (where, key, value) in enumerate(entries, 1):
            transport, _, next_hop = value.partition(":")
            if key in routed or refused("destination", f"destination {quoted(key)}"):
                left.append(f"{where} {key} {value}: only domains and addresses are translated, each once")
            elif transport in ("smtp", "relay") and next_hop:
                name = f"route{number}"
                self._queue(f"{name}_queue", self._smarthost(name, next_hop, None, with_login=False))
                self.routes.append((quoted(key), f"deliver_to &{name}_queue"))
            elif transport == "lmtp" and self._lmtp(f"route{number}", next_hop):
                self.routes.append((quoted(key), f"deliver_to &route{number}_queue"))
            elif transport in ("error", "discard"):
                text = re.sub(r"^[45]\.\d+\.\d+ ", "", next_hop) or "Not accepted"
                self.routes.append((quoted(key), f"reject 550 5.7.1 {quoted(text)}"))
            else:
                left.append(f"{where} {key} {value}: the transport {transport or '(none)'} has no counterpart")
        text = ". ".join(["they stand in destination { } of the endpoints", *left])
        self.draft.note(parameter, text)

    def _lmtp(self, name: str, next_hop: str) -> bool:
        kind, _, rest = next_hop.partition(":")
        path = rest if rest.startswith("/") else f"/var/spool/postfix/{rest}"
        host = f"unix://{path}" if kind == "unix" else f"tcp://{_address(next_hop.removeprefix('inet:'), 24)[0]}"
        if refused("target.lmtp", f"host {quoted(host)}"):
            return False
        self.draft.add(self.draft.block("target.lmtp", f"target.lmtp {name}"), f"host {quoted(host)}")
        self._queue(f"{name}_queue", name)
        return True

    # --- What comes in --------------------------------------------------------------------------

    def _services(self) -> None:
        """The endpoints: the socket of sendmail, and what listens in master.cf."""
        local = self.draft.block("submission", "submission unix:///run/mailrider/submission.sock")
        self._into_queue(local, first=True)
        if self.services is None:
            self._port_25(None)
        for service in self.services or ():
            line = Parameter(service.file, service.line, "", f"{service.name} {service.kind} {service.command}")
            if service.kind == "inet" and service.command == "smtpd":
                self._listener(service, line)
            elif service.command in ("", "postscreen") or service.kind == "inet":
                self.draft.note(line, "mailrider has nothing of that kind")
            else:
                names = ", ".join(each.name for each in service.options)
                self.draft.note(line, f"a process of Postfix; mailrider is one{f' ({names})' if names else ''}")
        for name in ("inet_interfaces", "mynetworks", "mynetworks_style", "mydestination"):
            parameter = self.given.get(name)
            if parameter is not None and not self.draft.is_seen(parameter):
                self.draft.note(parameter, _ABOUT[name])

    def _into_queue(self, block: DraftBlock, line: Parameter | None = None, *, first: bool = False) -> None:
        """What all submission endpoints have: their limits, and where mail goes."""
        self._simple("submission", block, silent=not first)
        for domains, action in self.routes:
            self.draft.add(block, f"destination {domains} {{\n    {action}\n}}")
        self.draft.add(block, f"deliver_to &{self.queue}", line)

    def _listener(self, service: PostfixService, line: Parameter) -> None:
        values = self.values.beside(service.options)
        host, _, port = service.name.rpartition(":")
        number = _PORTS.get(port, int(port) if port.isdigit() else 0)
        if not number:
            self.draft.note(line, f"the port {port} is not known")
        elif number == 25 and not host:
            self._port_25(service)
        elif values.of("smtpd_sasl_auth_enable") == "yes":
            self._with_login(service, line, values, host.strip("[]"), number)
        else:
            addresses = [host.strip("[]")] if host else [str(each) for each in self._interfaces()]
            local = [each for each in addresses if _is_loopback(each)]
            if not local:
                self.draft.note(line, "without logins an endpoint would be an open relay: write trust, or auth")
                return
            listen = " ".join(_listen("tcp", each, number) for each in local)
            block = self.draft.block("submission", f"submission {listen}")
            self._into_queue(block, line)

    def _with_login(self, service: PostfixService, line: Parameter, values: Values, host: str, port: int) -> None:
        if not self.has_certificate:
            self.draft.note(line, "passwords go over TLS only, and main.cf names no certificate: write tls CERT KEY")
            return
        scheme = "tls" if values.of("smtpd_tls_wrappermode") == "yes" or port == 465 else "tcp"
        addresses = [host] if host else [str(each) for each in self._interfaces()]
        listen = " ".join(_listen(scheme, each, port) for each in addresses)
        block = self.draft.block("submission", f"submission {listen}")
        remarks = [f"{line.where} {line.value}"]
        for each in service.options:
            why = "" if each.name in _KEPT else f": {reason(each.name)}"
            remarks.append(f"  -o {each.name}={each.value}{why}")
        remarks.append("Make its users: mailrider auth add USER")
        self.draft.add(block, "auth users", None, *remarks)
        enabled = self.given.get("smtpd_sasl_auth_enable")
        if enabled is not None:
            self.draft.note(enabled, "it stands in auth of the endpoints")
        self._sender_logins(block)
        self._into_queue(block)

    def _sender_logins(self, block: DraftBlock) -> None:
        """`authorize_sender`, where senders are tied to logins."""
        parameter = self.given.get("smtpd_sender_login_maps")
        if parameter is None:
            return
        entries, problem = self._table("smtpd_sender_login_maps")
        by_user: dict[str, list[str]] = {}
        for _, key, value in entries:
            for user in split_list(value):
                by_user.setdefault(user, []).append(key.removeprefix("@"))
        lines = [f"user {quoted(user)} {' '.join(map(quoted, own))}" for user, own in by_user.items()]
        good = [each for each in lines if not refused("authorize_sender", each)]
        inner = "".join(f"        {each}\n" for each in good)
        self.draft.add(block, f"check {{\n    authorize_sender {{\n{inner}    }}\n}}")
        left = [f"not translated: {each}" for each in lines if each not in good]
        self.draft.note(parameter, ". ".join(filter(None, ["it stands in authorize_sender", problem, *left])))

    def _port_25(self, service: PostfixService | None) -> None:
        """The endpoint that networks, or this machine alone, may use without a login."""
        line = None
        if service is not None:
            line = Parameter(service.file, service.line, "", f"{service.name} {service.kind} {service.command}")
        addresses = [str(each) for each in self._interfaces()]
        networks = self._trusted()
        beyond = [each for each in addresses if not _is_loopback(each)]
        mailboxes = self._mailboxes()
        if beyond and mailboxes:
            listen = " ".join(_listen("tcp", each, 25) for each in beyond)
            block = self.draft.block("smtp", f"smtp {listen}")
            remarks = [f"{line.where} {line.value}"] if line else []
            self.draft.add(block, f'{mailboxes}\nreject 550 5.7.1 "Not for us"', None, *remarks)
            if networks and "mynetworks" in self.given:
                self.draft.note(
                    self.given["mynetworks"],
                    "port 25 takes mail from the world here. Give these an endpoint of their own, on another port or "
                    f"address: trust {' '.join(networks)} and sender_domains {self.origin}",
                )
        elif beyond and networks:
            listen = " ".join(_listen("tcp", each, 25) for each in addresses)
            block = self.draft.block("submission", f"submission {listen}")
            remark = "They may send under these domains only."
            trusted = " ".join([*networks, *self._this_machine(addresses)])
            self.draft.add(block, f"trust {trusted}", self.given.get("mynetworks"))
            domains = dict.fromkeys((self.origin, self.values.of("mydomain")))
            good = [each for each in domains if each and not refused("sender_domains", f"sender_domains {each}")]
            self.draft.add(block, f"sender_domains {' '.join(good) or self.values.of('myhostname')}", None, remark)
            self._into_queue(block, line)
        else:
            listen = " ".join(_listen("tcp", each, 25) for each in addresses if _is_loopback(each))
            if not listen:
                listen = "tcp://127.0.0.1:25"
            self._into_queue(self.draft.block("submission", f"submission {listen}"), line)
            if beyond and line is not None:
                self.draft.note(line, "from beyond this machine nothing is taken: there is neither a network to trust "
                                "nor a mailbox that target.lmtp can give mail to")  # fmt: skip

    def _interfaces(self) -> Iterator[str]:
        """Where Postfix listens."""
        protocols = split_list(self.values.of("inet_protocols", "all"))
        versions = [4] if protocols == ["ipv4"] else [6] if protocols == ["ipv6"] else [4, 6]
        for each in split_list(self.values.of("inet_interfaces", "all")):
            if each == "all":
                yield from (_WORLD[version] for version in versions)
            elif each in ("loopback-only", "localhost"):
                yield from ({4: "127.0.0.1", 6: "::1"}[version] for version in versions)
            else:
                try:
                    yield str(ip_address(each.strip("[]")))
                except ValueError:
                    continue  # a name; the note on inet_interfaces tells that addresses are needed

    def _trusted(self) -> list[str]:
        """The private networks of `mynetworks`, without this machine."""
        found: list[str] = []
        public: list[str] = []
        for each in split_list(self.values.of("mynetworks")):
            try:
                network = ip_network(each.replace("[", "").replace("]", ""), strict=False)
            except ValueError:
                public.append(each)
                continue
            if network.is_loopback or network.subnet_of(_MAPPED_LOOPBACK[network.version]):  # type: ignore[arg-type]
                continue
            (found if is_private(network) else public).append(str(network))
        if public and "mynetworks" in self.given and not self.draft.is_seen(self.given["mynetworks"]):
            text = f"only private networks are trusted; these have to log in: {', '.join(public)}"
            self.draft.note(self.given["mynetworks"], text)
        return found

    def _this_machine(self, addresses: Iterable[str]) -> list[str]:
        """Its loopback addresses, if `mynetworks` has them and what listens at them is an address for all: programs
        that hand in mail at localhost go on then. An endpoint at loopback itself takes them in any case."""
        found = []
        for each in (ip_address(own) for own in ("127.0.0.1", "::1")):
            is_trusted = any(each in network for network in self._networks() if network.version == each.version)
            if is_trusted and _WORLD[each.version] in addresses:
                found.append(f"{each}/{each.max_prefixlen}")
        return found

    def _networks(self) -> Iterator[IPv4Network | IPv6Network]:
        """Those of `mynetworks`, as far as they are networks."""
        for each in split_list(self.values.of("mynetworks")):
            with suppress(ValueError):
                yield ip_network(each.replace("[", "").replace("]", ""), strict=False)

    def _mailboxes(self) -> str:
        """The destination of mail from the world, if a program that speaks LMTP takes it."""
        for name, domains in (
            ("virtual_transport", "virtual_mailbox_domains"),
            ("mailbox_transport", "mydestination"),
        ):
            transport, _, next_hop = self.values.of(name).partition(":")
            wanted = [
                each
                for each in split_list(self.values.of(domains))
                if "." in each.removeprefix("localhost.") and not refused("destination", f"destination {each}")
            ]
            if transport != "lmtp" or not wanted or name not in self.given:
                continue
            if self._lmtp("mailboxes", next_hop):
                self.draft.note(self.given[name], "it stands in target.lmtp mailboxes")
                if domains in self.given:
                    self.draft.note(self.given[domains], "they stand in destination of the endpoint smtp")
                return f"destination {' '.join(wanted)} {{\n    deliver_to &mailboxes\n}}"
        return ""


_KEPT: Final = frozenset({"smtpd_sasl_auth_enable", "smtpd_tls_wrappermode"})
_ABOUT: Final = {
    "inet_interfaces": "it stands in the addresses of the endpoints: IP addresses, no names",
    "mynetworks": "programs of this machine use the socket and loopback; there is no private network beside them",
    "mynetworks_style": "name the networks: trust 10.20.0.0/16",
    "mydestination": "mail for these domains goes where their MX records say, or to another program by target.lmtp",
}


def _tables(value: str) -> list[str]:
    """The tables of a list; those that stand in braces hold commas of their own."""
    return [each for each in re.findall(r"(?:[^,\s{]|\{[^{}]*\})+", value) if ":" in each]


def _address(host: str, port: int = 25) -> tuple[str, bool]:
    """`name:port` for our language; True with one that stood in brackets."""
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return f"{host}:{port}", False
    given = match["port"] or ""
    number = _PORTS.get(given, int(given) if given.isdigit() else port)
    name = match["literal"] or match["name"]
    name = name.removeprefix("ipv6:").removeprefix("IPv6:")
    return (f"[{name}]:{number}" if ":" in name else f"{name}:{number}"), match["literal"] is not None


def _same_host(key: str, relay: str) -> bool:
    return key == relay or _address(key) == _address(relay)


def _listen(scheme: str, address: str, port: int) -> str:
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False


def _that_loads(text: str) -> str:
    """The text, once more looked at as a whole. Raises `ConfigError` for what would be a bug here."""
    loads(text, environment={})
    return text
