"""From Postfix: what stands outside of all blocks, such as names, the certificate and aliases."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.migrate.draft import argument
from mailrider.migrate.postfix_files import split_list
from mailrider.migrate.postfix_source import TEXT_TABLES

if TYPE_CHECKING:
    from mailrider.migrate.draft import DraftBlock
    from mailrider.migrate.postfix_files import Parameter
    from mailrider.migrate.postfix_source import PostfixSource


@dataclass(frozen=True, slots=True)
class TopLevel:
    """Writes the lines at the top."""

    source: PostfixSource

    def write(self) -> None:
        """Write all lines of the top level."""
        top = self.source.draft.block("top")
        draft, given = self.source.draft, self.source.given
        if not draft.put(top, f"hostname {argument(self.source.values.of('myhostname'))}", given.get("myhostname")):
            draft.add(top, "hostname localhost", None, "The name of this server, which Postfix took from the system.")
        if "mydomain" in given:
            draft.note(given["mydomain"], "domains are written where they are used")
        self._origin(top)
        self._certificate(top)
        if "alias_maps" in given:
            self._aliases(top, given["alias_maps"])
        self._virtual_aliases()
        self._postmaster(top)
        self.source.simple("top", top)

    def _origin(self, top: DraftBlock) -> None:
        parameter = self.source.given.get("myorigin")
        origin = self.source.values.of("myorigin")
        if parameter is not None and origin.startswith("/"):
            text = self.source.read(origin)
            if text is None:
                self.source.draft.note(parameter, f"{origin} cannot be read: write its content, origin DOMAIN")
                return
            origin = text.strip()
        if parameter is not None:
            self.source.draft.put(top, f"origin {argument(origin)}", parameter)

    def _certificate(self, top: DraftBlock) -> None:
        given, values = self.source.given, self.source.values
        chain = split_list(values.of("smtpd_tls_chain_files"))
        certificate, key = values.of("smtpd_tls_cert_file"), values.of("smtpd_tls_key_file")
        if chain:
            pair = (chain[-1], chain[0]) if len(chain) > 1 else (chain[0], chain[0])
            self.source.draft.put(
                top,
                f"tls {argument(pair[0])} {argument(pair[1])}",
                given["smtpd_tls_chain_files"],
                "The chain first, then the key." if len(chain) > 1 else "",
            )
        elif certificate and certificate != "none":
            self.source.draft.put(
                top, f"tls {argument(certificate)} {argument(key or certificate)}", given.get("smtpd_tls_cert_file")
            )
        else:
            return
        for name in ("smtpd_tls_key_file", "smtpd_tls_cert_file"):
            if name in given and not self.source.draft.is_seen(given[name]):
                self.source.draft.note(given[name], "it stands in tls CERT KEY")

    def _aliases(self, top: DraftBlock, parameter: Parameter) -> None:
        tables = split_list(self.source.values.of("alias_maps"))
        files = [path for kind, _, path in (each.partition(":") for each in tables) if kind in TEXT_TABLES and path]
        if files and self.source.draft.put(top, f"aliases {argument(files[0])}", parameter):
            others = [each for each in tables if not each.endswith(files[0])]
            if others:
                self.source.draft.note(parameter, f"one file can be named, and it is text: not {', '.join(others)}")
        elif tables:
            self.source.draft.note(parameter, f"no table in text: {', '.join(tables)}")
        else:
            self.source.draft.note(parameter, "there are none")

    def _virtual_aliases(self) -> None:
        """Virtual aliases of our own names become aliases; those of other names would rewrite addresses."""
        parameter = self.source.given.get("virtual_alias_maps")
        if parameter is None:
            return
        entries, problem = self.source.table("virtual_alias_maps")
        ours = {self.source.origin, *split_list(self.source.values.of("mydestination"))}
        names = {key.partition("@")[0]: value for _, key, value in entries if key.partition("@")[2] in {"", *ours}}
        others = [key for _, key, _ in entries if key.partition("@")[2] not in {"", *ours}]
        text = [problem] if problem else []
        if names:
            text.append("write these into the file of aliases: " + "; ".join(f"{a}: {b}" for a, b in names.items()))
        if others or not entries:
            text.append(f"addresses of other domains are not rewritten: {', '.join(others[:20])}".rstrip(": "))
        self.source.draft.note(parameter, ". ".join(text))

    def _postmaster(self, top: DraftBlock) -> None:
        classes = self.source.given.get("notify_classes")
        recipient = self.source.given.get("2bounce_notice_recipient")
        if classes is None or "2bounce" not in split_list(classes.value):
            return
        address = self.source.values.of("2bounce_notice_recipient", "postmaster")
        address = address if "@" in address else f"{address}@{self.source.origin}"
        self.source.draft.put(top, f"postmaster {argument(address)}", classes)
        if recipient is not None:
            self.source.draft.note(recipient, "it stands in postmaster")
