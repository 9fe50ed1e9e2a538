"""From Postfix: where mail goes. Targets, the queues in front of them, and the domains that have a way of their own."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from mailrider.migrate.draft import argument, comment, refused
from mailrider.migrate.postfix_source import PORTS

if TYPE_CHECKING:
    from mailrider.migrate.draft import DraftBlock
    from mailrider.migrate.postfix_files import Parameter
    from mailrider.migrate.postfix_source import PostfixSource

PASSWORD_FILE: Final = "smtp_password"  # noqa: S105 # the name of the file that one stands in
_HOST = re.compile(r"(?:\[(?P<literal>[^\]]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>[A-Za-z0-9-]+))?")
_MX_AUTH: Final = "mx_auth {\n    mtasts\n    dane\n    dnssec%s\n}"
_LOCAL_POLICY: Final = "\n    local_policy {\n        min_tls_level %s\n    }"
_LEVELS: Final = {
    **dict.fromkeys(("none", "may", "dane"), ""),
    "encrypt": _LOCAL_POLICY % "encrypted",
    **dict.fromkeys(("dane-only", "verify", "secure", "fingerprint"), _LOCAL_POLICY % "authenticated"),
}


@dataclass(frozen=True, slots=True)
class PostfixTargets:
    """Writes the targets. `routes`: the destinations that all submission endpoints have, each with what becomes of it.

    `queue`: where all other mail goes.
    """

    source: PostfixSource
    routes: list[tuple[str, str]] = field(default_factory=list)
    queue: str = "outqueue"

    def write(self) -> None:
        """The targets and the queues in front of them."""
        relay = self.source.values.of("relayhost")
        if relay:
            target = self._smarthost("relay", relay, self.source.given["relayhost"], with_login=True)
        else:
            if "relayhost" in self.source.given:
                without = "there is none: mail goes to the recipients' own servers"
                self.source.draft.note(self.source.given["relayhost"], without)
            target = self._remote("outbound", self._level(), self.source.given.get("smtp_tls_security_level"))
        self._queue(self.queue, target, first=True)
        self._tls_policies(relay)
        self._transports()
        self._sasl_passwords(relay)

    def _queue(self, name: str, target: str, *, first: bool = False) -> None:
        block = self.source.draft.block("target.queue", f"target.queue {name}")
        self.source.draft.add(block, f"target &{target}")
        self.source.simple("target.queue", block, silent=not first)

    def _level(self) -> str:
        level = self.source.values.of("smtp_tls_security_level")
        return level if level in _LEVELS else "may"

    def _remote(self, name: str, level: str, parameter: Parameter | None, *, first: bool = True) -> str:
        block = self.source.draft.block("target.remote", f"target.remote {name}")
        if level == "none" or (level == "may" and parameter is None):
            remark = "What the recipients' domains ask for is kept, which Postfix did not do by itself."
        else:
            remark = ""
        self.source.draft.add(block, _MX_AUTH % _LEVELS[level], parameter, *([remark] if remark else []))
        limits = self._limits(first=first)
        if limits:
            block.lines.append(limits)
        self.source.simple("target", block, trial="target.remote", silent=not first)
        protocols = self.source.given.get("inet_protocols")
        if protocols is not None and self.source.values.of("inet_protocols") in ("ipv4", "ipv4 "):
            self.source.draft.add(block, "force_ipv4 yes", protocols if first else None)
        return name

    def _limits(self, *, first: bool) -> tuple[list[str], str] | None:
        """`limits { }` of a target; Postfix counts for each destination."""
        inner: list[str] = []
        comments: list[str] = []
        for names, form in (
            (("smtp_destination_concurrency_limit", "default_destination_concurrency_limit"), "concurrency {}"),
            (("smtp_destination_rate_delay", "default_destination_rate_delay"), "rate 1 {}"),
        ):
            parameter = next((self.source.given[each] for each in names if each in self.source.given), None)
            if parameter is None:
                continue
            value = self.source.values.of(parameter.name)
            value = value if not form.startswith("rate") or value[-1:].isalpha() else f"{value}s"
            line = f"destination {form.format(value)}"
            if value.strip("s") == "0" or refused("target.remote", f"limits {{\n{line}\n}}"):
                if first:
                    self.source.draft.note(parameter, "no limit")
                continue
            inner.append(f"    {line}")
            if first:
                comments.append(f"{parameter.where} {parameter.name} = {comment(parameter.value)}")
                self.source.draft.seen(parameter)
        return (comments, "limits {\n" + "\n".join(inner) + "\n}") if inner else None

    def _smarthost(self, name: str, host: str, parameter: Parameter | None, *, with_login: bool) -> str:
        """A `target.smtp`; `host` as Postfix writes it: `[name]:port`, `name`, `name:port`."""
        block = self.source.draft.block("target.smtp", f"target.smtp {name}")
        address, has_brackets = split_address(host)
        scheme = "tls" if with_login and self.source.values.of("smtp_tls_wrappermode") == "yes" else "tcp"
        remarks = [] if has_brackets else ["Postfix asked for the MX hosts of that name; here it is the host itself."]
        if not self.source.draft.put(block, f"host {scheme}://{address}", parameter, *remarks, kind="host"):
            self.source.draft.add(block, "host tls://smtp.example.org:465", None, "The server has to be named here.")
        if scheme == "tls" and "smtp_tls_wrappermode" in self.source.given:
            self.source.draft.note(self.source.given["smtp_tls_wrappermode"], "it stands in host tls://")
        self._smarthost_security(block, with_login=with_login)
        if with_login and (limits := self._limits(first=True)):
            block.lines.append(limits)
        self.source.simple("target", block, trial="target.smtp", silent=not with_login)
        return name

    def _smarthost_security(self, block: DraftBlock, *, with_login: bool) -> None:
        parameter = self.source.given.get("smtp_tls_security_level")
        level = self._level()
        logs_in = with_login and self.source.values.of("smtp_sasl_auth_enable") == "yes"
        if parameter is None or not with_login:
            if not logs_in:
                self.source.draft.add(
                    block, "starttls offered\nmin_tls_level none", None, "As in Postfix: TLS if there is some."
                )
            return
        if level in ("verify", "secure", "dane-only", "dane", "fingerprint"):
            self.source.draft.note(parameter, "starttls required and min_tls_level authenticated are the default here")
        elif logs_in:
            text = "min_tls_level encrypted" if level == "encrypt" else ""
            if text:
                self.source.draft.add(block, text, parameter, "Better without: then the certificate has to be right.")
            else:
                verified = "a password goes over verified TLS only (starttls required is the default)"
                self.source.draft.note(parameter, verified)
        elif level == "encrypt":
            self.source.draft.add(block, "min_tls_level encrypted", parameter)
        elif level == "none":
            self.source.draft.add(block, "starttls no\nmin_tls_level none", parameter)
        else:
            self.source.draft.add(block, "starttls offered\nmin_tls_level none", parameter)

    def _sasl_passwords(self, relay: str) -> None:
        """`auth` of the smarthost: its user by name, its password in a file."""
        enabled, maps = self.source.given.get("smtp_sasl_auth_enable"), self.source.given.get("smtp_sasl_password_maps")
        if enabled is not None and self.source.values.of("smtp_sasl_auth_enable") != "yes":
            self.source.draft.note(enabled, "auth off is the default")
            enabled = None
        block = next((each for each in self.source.draft.blocks if each.head == "target.smtp relay"), None)
        if maps is None or enabled is None or block is None:
            for each in (maps, enabled):
                if each is not None:
                    self.source.draft.note(
                        each, "there is no relayhost to log in to, or no passwords: write auth in target.smtp"
                    )
            return
        entries, problem = self.source.table("smtp_sasl_password_maps")
        same = (each for _, key, each in entries if key == relay or split_address(key) == split_address(relay))
        user = next(same, "").partition(":")[0]
        told = [f"Write the password into a file {PASSWORD_FILE} beside this one, readable by the daemon's user alone."]
        if not user:
            told.append(f"The user name is not known{f': {problem}' if problem else ''}: write it in place of USER.")
        line = f"auth plain {argument(user or 'USER')} {{file:{PASSWORD_FILE}}}"
        if self.source.draft.put(block, line, maps, *told):
            self.source.draft.note(enabled, "it stands in auth")

    def _tls_policies(self, relay: str) -> None:
        """A target and a queue for each level that some domains have of their own."""
        parameter = self.source.given.get("smtp_tls_policy_maps")
        if parameter is None:
            return
        entries, problem = self.source.table("smtp_tls_policy_maps")
        by_level: dict[str, list[str]] = {}
        left: list[str] = [problem] if problem else []
        for where, key, value in entries:
            level = value.partition(" ")[0]
            if relay:
                left.append(f"{where} {key} {value}: all mail goes to the relayhost: see min_tls_level there")
            elif level not in _LEVELS or refused("destination", f"destination {argument(key)}"):
                left.append(f"{where} {key} {value}: only whole domains and the levels of Postfix are translated")
            else:
                if len(value.split()) > 1:
                    left.append(f"{where} {key} {value}: what stands behind the level is not kept")
                by_level.setdefault(level, []).append(key)
        for level, domains in by_level.items():
            name = level.replace("-", "_")
            self._remote(f"outbound_{name}", level, None, first=False)
            self._queue(f"outqueue_{name}", f"outbound_{name}")
            self.routes.append((" ".join(map(argument, domains)), f"deliver_to &outqueue_{name}"))
        if by_level:
            left.insert(0, f"it stands in destination {{ }} of the endpoints ({', '.join(by_level)})")
        self.source.draft.note(parameter, ". ".join(left) or "it has no entries")

    def _transports(self) -> None:
        parameter = self.source.given.get("transport_maps")
        if parameter is None:
            return
        entries, problem = self.source.table("transport_maps")
        left: list[str] = [problem] if problem else []
        routed = [route for domains, _ in self.routes for route in domains.split()]
        for number, (where, key, value) in enumerate(entries, 1):
            transport, _, next_hop = value.partition(":")
            if key in routed or refused("destination", f"destination {argument(key)}"):
                left.append(f"{where} {key} {value}: only domains and addresses are translated, each once")
            elif transport in ("smtp", "relay") and next_hop:
                name = f"route{number}"
                self._queue(f"{name}_queue", self._smarthost(name, next_hop, None, with_login=False))
                self.routes.append((argument(key), f"deliver_to &{name}_queue"))
            elif transport == "lmtp" and self.lmtp(f"route{number}", next_hop):
                self.routes.append((argument(key), f"deliver_to &route{number}_queue"))
            elif transport in ("error", "discard"):
                text = re.sub(r"^[45]\.\d+\.\d+ ", "", next_hop) or "Not accepted"
                action = f"reject 550 5.7.1 {argument(text)}"
                if refused("rejecting", action):
                    action = "reject 550 5.7.1"
                self.routes.append((argument(key), action))
            else:
                left.append(f"{where} {key} {value}: the transport {transport or '(none)'} has no counterpart")
        text = ". ".join(["they stand in destination { } of the endpoints", *left])
        self.source.draft.note(parameter, text)

    def lmtp(self, name: str, next_hop: str) -> bool:
        """A `target.lmtp` with a queue in front of it; False if there is none for such a next hop."""
        kind, _, rest = next_hop.partition(":")
        path = rest if rest.startswith("/") else f"/var/spool/postfix/{rest}"
        host = f"unix://{path}" if kind == "unix" else f"tcp://{split_address(next_hop.removeprefix('inet:'), 24)[0]}"
        if refused("target.lmtp", f"host {argument(host)}"):
            return False
        self.source.draft.add(self.source.draft.block("target.lmtp", f"target.lmtp {name}"), f"host {argument(host)}")
        self._queue(f"{name}_queue", name)
        return True


def split_address(host: str, port: int = 25) -> tuple[str, bool]:
    """`name:port` for our language; True with one that stood in brackets."""
    match = _HOST.fullmatch(host.strip())
    if match is None:
        return f"{host}:{port}", False
    given = match["port"] or ""
    number = PORTS.get(given, int(given) if given.isdigit() else port)
    name = match["literal"] or match["name"]
    name = name.removeprefix("ipv6:").removeprefix("IPv6:")
    return (f"[{name}]:{number}" if ":" in name else f"{name}:{number}"), match["literal"] is not None
