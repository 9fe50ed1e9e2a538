"""From Postfix: how mail comes in. What listens in master.cf becomes endpoints, and the socket of sendmail another."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from typing import TYPE_CHECKING, Final

from mailrider.endpoint.trust import is_private
from mailrider.migrate.draft import argument, refused
from mailrider.migrate.postfix_files import Parameter, Values, split_list
from mailrider.migrate.postfix_source import PORTS
from mailrider.migrate.postfix_table import reason

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from ipaddress import IPv4Network, IPv6Network

    from mailrider.migrate.draft import DraftBlock
    from mailrider.migrate.postfix_files import PostfixService
    from mailrider.migrate.postfix_source import PostfixSource
    from mailrider.migrate.postfix_targets import PostfixTargets

_WORLD: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 # as the other program had it
_MAPPED_LOOPBACK: Final = {4: ip_network("127.0.0.0/8"), 6: ip_network("::ffff:127.0.0.0/104")}
_KEPT: Final = frozenset({"smtpd_sasl_auth_enable", "smtpd_tls_wrappermode"})
_ABOUT: Final = {
    "inet_interfaces": "it stands in the addresses of the endpoints: IP addresses, no names",
    "mynetworks": "programs of this machine use the socket and loopback; there is no private network beside them",
    "mynetworks_style": "name the networks: trust 10.20.0.0/16",
    "mydestination": "mail for these domains goes where their MX records say, or to another program by target.lmtp",
}


@dataclass(frozen=True, slots=True)
class PostfixEndpoints:
    """Writes the endpoints, which give their mail to `targets`."""

    source: PostfixSource
    targets: PostfixTargets

    def write(self) -> None:
        """The endpoints: the socket of sendmail, and what listens in master.cf."""
        local = self.source.draft.block("submission", "submission unix:///run/mailrider/submission.sock")
        self._into_queue(local, first=True)
        if self.source.services is None:
            self._port_25(None)
        for service in self.source.services or ():
            line = Parameter(service.file, service.line, "", f"{service.name} {service.kind} {service.command}")
            if service.kind == "inet" and service.command == "smtpd":
                self._listener(service, line)
            elif service.command in ("", "postscreen") or service.kind == "inet":
                self.source.draft.note(line, "mailrider has nothing of that kind")
            else:
                names = ", ".join(each.name for each in service.options)
                self.source.draft.note(line, f"a process of Postfix; mailrider is one{f' ({names})' if names else ''}")
        for name in ("inet_interfaces", "mynetworks", "mynetworks_style", "mydestination"):
            parameter = self.source.given.get(name)
            if parameter is not None and not self.source.draft.is_seen(parameter):
                self.source.draft.note(parameter, _ABOUT[name])

    def _into_queue(self, block: DraftBlock, line: Parameter | None = None, *, first: bool = False) -> None:
        """What all submission endpoints have: their limits, and where mail goes."""
        self.source.simple("submission", block, silent=not first)
        for domains, action in self.targets.routes:
            self.source.draft.add(block, f"destination {domains} {{\n    {action}\n}}")
        self.source.draft.add(block, f"deliver_to &{self.targets.queue}", line)

    def _listener(self, service: PostfixService, line: Parameter) -> None:
        values = self.source.values.beside(service.options)
        host, _, port = service.name.rpartition(":")
        number = PORTS.get(port, int(port) if port.isdigit() else 0)
        if not number:
            self.source.draft.note(line, f"the port {port} is not known")
        elif number == 25 and not host:
            self._port_25(line)
        elif values.of("smtpd_sasl_auth_enable") == "yes":
            self._with_login(service, line, values, host.strip("[]"), number)
        else:
            addresses = [host.strip("[]")] if host else self._interfaces()
            local = [each for each in addresses if _is_loopback(each)]
            if not local:
                self.source.draft.note(line, "without logins an endpoint would be an open relay: write trust, or auth")
                return
            listen = " ".join(_listen("tcp", each, number) for each in local)
            block = self.source.draft.block("submission", f"submission {listen}")
            self._into_queue(block, line)

    @property
    def _has_certificate(self) -> bool:
        return any(line.startswith("tls ") for _, line in self.source.draft.blocks[0].lines)

    def _with_login(self, service: PostfixService, line: Parameter, values: Values, host: str, port: int) -> None:
        if not self._has_certificate:
            without = "passwords go over TLS only, and main.cf names no certificate: write tls CERT KEY"
            self.source.draft.note(line, without)
            return
        scheme = "tls" if values.of("smtpd_tls_wrappermode") == "yes" or port == 465 else "tcp"
        addresses = [host] if host else self._interfaces()
        listen = " ".join(_listen(scheme, each, port) for each in addresses)
        block = self.source.draft.block("submission", f"submission {listen}")
        remarks = [f"{line.where} {line.value}"]
        for each in service.options:
            why = "" if each.name in _KEPT else f": {reason(each.name)}"
            remarks.append(f"  -o {each.name}={each.value}{why}")
        remarks.append("Make its users: mailrider auth add USER")
        self.source.draft.add(block, "auth users", None, *remarks)
        enabled = self.source.given.get("smtpd_sasl_auth_enable")
        if enabled is not None:
            self.source.draft.note(enabled, "it stands in auth of the endpoints")
        self._sender_logins(block)
        self._into_queue(block)

    def _sender_logins(self, block: DraftBlock) -> None:
        """`authorize_sender`, where senders are tied to logins."""
        parameter = self.source.given.get("smtpd_sender_login_maps")
        if parameter is None:
            return
        entries, problem = self.source.table("smtpd_sender_login_maps")
        by_user: dict[str, list[str]] = {}
        for _, key, value in entries:
            for user in split_list(value):
                by_user.setdefault(user, []).append(key.removeprefix("@"))
        lines = [f"user {argument(user)} {' '.join(map(argument, own))}" for user, own in by_user.items()]
        good = [each for each in lines if not refused("authorize_sender", each)]
        inner = "".join(f"        {each}\n" for each in good)
        self.source.draft.add(block, f"check {{\n    authorize_sender {{\n{inner}    }}\n}}")
        left = [f"not translated: {each}" for each in lines if each not in good]
        self.source.draft.note(parameter, ". ".join(filter(None, ["it stands in authorize_sender", problem, *left])))

    def _port_25(self, line: Parameter | None) -> None:
        """The endpoint that the world, networks, or this machine alone may use without a login."""
        addresses = list(self._interfaces())
        networks = self._trusted()
        beyond = [each for each in addresses if not _is_loopback(each)]
        mailboxes = self._mailboxes()
        if beyond and mailboxes:
            self._from_the_world(beyond, mailboxes, networks, line)
        elif beyond and networks:
            self._from_networks(addresses, networks, line)
        else:
            listen = " ".join(_listen("tcp", each, 25) for each in addresses if _is_loopback(each))
            block = self.source.draft.block("submission", f"submission {listen or 'tcp://127.0.0.1:25'}")
            self._into_queue(block, line)
            if beyond and line is not None:
                nothing = (
                    "from beyond this machine nothing is taken: there is neither a network to trust nor a mailbox that "
                    "target.lmtp can give mail to"
                )
                self.source.draft.note(line, nothing)

    def _from_the_world(
        self, addresses: Sequence[str], mailboxes: str, networks: Sequence[str], line: Parameter | None
    ) -> None:
        draft, own = self.source.draft, self.source.given.get("mynetworks")
        listen = " ".join(_listen("tcp", each, 25) for each in addresses)
        remarks = [f"{line.where} {line.value}"] if line else []
        block = draft.block("smtp", f"smtp {listen}")
        draft.add(block, f'{mailboxes}\nreject 550 5.7.1 "Not for us"', None, *remarks)
        if networks and own is not None:
            another = (
                "port 25 takes mail from the world here. Give these an endpoint of their own, on another port or "
                f"address: trust {' '.join(networks)} and sender_domains {self.source.origin}"
            )
            draft.note(own, another)

    def _from_networks(self, addresses: Sequence[str], networks: Sequence[str], line: Parameter | None) -> None:
        draft, values = self.source.draft, self.source.values
        listen = " ".join(_listen("tcp", each, 25) for each in addresses)
        block = draft.block("submission", f"submission {listen}")
        trusted = " ".join([*networks, *self._this_machine(addresses)])
        draft.add(block, f"trust {trusted}", self.source.given.get("mynetworks"))
        domains = dict.fromkeys((self.source.origin, values.of("mydomain")))
        good = [each for each in domains if each and not refused("sender_domains", f"sender_domains {each}")]
        senders = " ".join(good) or values.of("myhostname")
        draft.add(block, f"sender_domains {senders}", None, "They may send under these domains only.")
        self._into_queue(block, line)

    def _interfaces(self) -> Iterator[str]:
        """Where Postfix listens."""
        protocols = split_list(self.source.values.of("inet_protocols", "all"))
        versions = [4] if protocols == ["ipv4"] else [6] if protocols == ["ipv6"] else [4, 6]
        for each in split_list(self.source.values.of("inet_interfaces", "all")):
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
        for each in split_list(self.source.values.of("mynetworks")):
            try:
                network = ip_network(each.replace("[", "").replace("]", ""), strict=False)
            except ValueError:
                public.append(each)
                continue
            mapped = _MAPPED_LOOPBACK[network.version]
            if network.is_loopback or network.subnet_of(mapped):  # type: ignore[arg-type] # of the same version
                continue
            (found if is_private(network) else public).append(str(network))
        parameter = self.source.given.get("mynetworks")
        if public and parameter is not None and not self.source.draft.is_seen(parameter):
            text = f"only private networks are trusted; these have to log in: {', '.join(public)}"
            self.source.draft.note(parameter, text)
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
        """The networks of `mynetworks`; what is none is left out."""
        for each in split_list(self.source.values.of("mynetworks")):
            with suppress(ValueError):
                yield ip_network(each.replace("[", "").replace("]", ""), strict=False)

    def _mailboxes(self) -> str:
        """The destination of mail from the world, if a program that speaks LMTP takes it."""
        pairs = (("virtual_transport", "virtual_mailbox_domains"), ("mailbox_transport", "mydestination"))
        for name, domains in pairs:
            transport, _, next_hop = self.source.values.of(name).partition(":")
            wanted = [
                each
                for each in split_list(self.source.values.of(domains))
                if "." in each.removeprefix("localhost.") and not refused("destination", f"destination {each}")
            ]
            if transport != "lmtp" or not wanted or name not in self.source.given:
                continue
            if self.targets.lmtp("mailboxes", next_hop):
                self.source.draft.note(self.source.given[name], "it stands in target.lmtp mailboxes")
                if domains in self.source.given:
                    self.source.draft.note(self.source.given[domains], "they stand in destination of the endpoint smtp")
                return f"destination {' '.join(wanted)} {{\n    deliver_to &mailboxes\n}}"
        return ""


def _listen(scheme: str, address: str, port: int) -> str:
    return f"{scheme}://[{address}]:{port}" if ":" in address else f"{scheme}://{address}:{port}"


def _is_loopback(address: str) -> bool:
    try:
        return ip_address(address).is_loopback
    except ValueError:
        return False
