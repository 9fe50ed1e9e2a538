"""What is wrong with the settings of an endpoint as a whole, and what would make an open relay of it.

`relay_holes` looks at an endpoint with all targets at hand: whether mail from anybody can reach the world through it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from mailrider.delivery.settings import RemoteSettings
from mailrider.delivery.smarthost_settings import LMTPSettings, SmarthostSettings
from mailrider.endpoint.settings import LMTPEndpointSettings, SubmissionSettings
from mailrider.net.local import container
from mailrider.queue.settings import QueueSettings
from mailrider.settings.pipeline import TargetRef
from mailrider.settings.socket_address import Scheme

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from mailrider.endpoint.settings import EndpointSettings
    from mailrider.settings.directive import Settings
    from mailrider.settings.pipeline import PipelineSettings, Target


def address_faults(endpoint: EndpointSettings) -> Iterator[str]:
    """Why it cannot listen where it should; nothing if it can."""
    if not endpoint.listen:
        yield "expected an address, such as tcp://127.0.0.1:587 or unix:///run/mailrider/submission"
    has_tls = endpoint.tls is not None and endpoint.tls.is_on
    for address in endpoint.listen:
        if address.scheme is not Scheme.UNIX and address.ip is None:
            yield f"{address}: expected an IP address, not a name"
        elif address.scheme is Scheme.TLS and not has_tls:
            yield f"{address} needs a certificate: tls CERT KEY"
    beyond = endpoint.beyond
    if beyond and isinstance(endpoint, SubmissionSettings):
        if endpoint.auth is None and not endpoint.trust:
            yield f"{beyond[0]} would be an open relay: auth FILE is needed where others than this machine can connect"
        elif endpoint.auth is not None and not has_tls:
            yield f"{beyond[0]} would never let anybody log in: passwords go over TLS only, so tls CERT KEY is needed"


def login_faults(endpoint: EndpointSettings) -> Iterator[str]:
    """Why a check for logged-in users would let nobody through; nothing if there are some."""
    if endpoint.auth is not None:
        return
    blocks = [endpoint, *(block for pipeline in endpoint.pipelines for block in (pipeline, *pipeline.routes))]
    if any(block.check is not None and block.check.authorize_sender is not None for block in blocks):
        yield "authorize_sender would let nobody through: auth FILE is needed, so that users can log in"


def relay_holes(endpoint: EndpointSettings, find: Callable[[str], Settings | None]) -> Iterator[str]:
    """How mail from anybody to anybody could leave through it, in words; nothing if it cannot.

    `find` gives the settings of a target by its name. Domains that `destination` names are the operator's word.
    """
    beyond = endpoint.beyond
    if isinstance(endpoint, SubmissionSettings) or not beyond:
        return
    for pipeline in endpoint.pipelines:
        for target in _for_anybody(pipeline):
            if _leads_out(target, find, ()):
                yield (
                    f"{beyond[0]} would be an open relay: mail from anybody to anybody would go to {_name(target)}; "
                    "name the domains that it is for: destination example.org { deliver_to ... }, and reject the rest"
                )
            elif _notifies_anybody(target, find):
                yield (
                    f"{beyond[0]} would send notifications to whoever a stranger names as the sender, by the bounce of "
                    f"{_name(target)}; name the domains that it is for: destination example.org {{ deliver_to ... }}, "
                    "and reject the rest"
                )


class WeakSpot(NamedTuple):
    """What a postmaster should know, and what to do about it; or may leave, where it `is_choice`."""

    text: str
    cure: str
    is_choice: bool = False


def weak_spots(endpoint: EndpointSettings, find: Callable[[str], Settings | None]) -> Iterator[WeakSpot]:
    """What a postmaster should know about an endpoint that is right, and what to do about it."""
    blocks = [endpoint, *(block for pipeline in endpoint.pipelines for block in (pipeline, *pipeline.routes))]
    if any(block.check is not None and block.check.rspamd for block in blocks):
        text = "of rspamd's answer only the action counts: header fields and a subject of its own are not applied"
        yield WeakSpot(text, "rspamd's milter proxy applies them, in front of another mail server", is_choice=True)
    if isinstance(endpoint, SubmissionSettings) and endpoint.trust and container():
        text = "in a container everybody may seem to come from one address, that of its gateway or of a proxy"
        cure = "give the container the network of the host, or let clients log in: auth FILE instead of trust"
        yield WeakSpot(text, cure)
    targets = list(endpoint.every_target)
    if not isinstance(endpoint, LMTPEndpointSettings) and not all(_is_queue(each, find) for each in targets):
        text = "where mail is not queued a transaction has one recipient, others are asked to come again (452 4.5.3)"
        cure = "a queue in front takes any number: target.queue NAME { target &TARGET }, and deliver_to &NAME"
        # Mail programs of people show it as an error; other servers come again, and who is unknown is told at once.
        yield WeakSpot(text, cure, is_choice=not isinstance(endpoint, SubmissionSettings))
    beyond = [each for each in endpoint.listen if each.ip is not None and not each.is_local]
    if beyond and not isinstance(endpoint, SubmissionSettings) and any(_notifies_anybody(e, find) for e in targets):
        text = "strangers' mail that cannot be delivered makes notifications to senders that may be forged"
        cure = "bounce { destination OWN.DOMAIN { deliver_to ... }; default_destination { reject } } in the queue"
        yield WeakSpot(text, cure)


def _for_anybody(pipeline: PipelineSettings) -> Iterator[Target]:
    """Where recipients go that no `destination` names."""
    default = pipeline.default_destination
    for target in (pipeline.deliver_to, None if default is None else default.deliver_to):
        if target is not None:
            yield target


def _resolved(target: Target, find: Callable[[str], Settings | None]) -> Settings | None:
    return find(target.name) if isinstance(target, TargetRef) else target


def _is_queue(target: Target, find: Callable[[str], Settings | None]) -> bool:
    return isinstance(_resolved(target, find), QueueSettings)


def _notifies_anybody(target: Target, find: Callable[[str], Settings | None]) -> bool:
    """True if notifications about what is in that queue may go to any address in the world."""
    queue = _resolved(target, find)
    if not isinstance(queue, QueueSettings):
        return False
    ways = [queue.target] if queue.bounce is None else list(_for_anybody(queue.bounce))
    return any(way is not None and _leads_out(way, find, ()) for way in ways)


def _leads_out(target: Target, find: Callable[[str], Settings | None], seen: tuple[str, ...]) -> bool:
    if isinstance(target, TargetRef):
        if target.name in seen:
            return False
        found = find(target.name)
        return found is not None and _leads_out(found, find, (*seen, target.name))
    if isinstance(target, QueueSettings):
        return target.target is not None and _leads_out(target.target, find, seen)
    # A smarthost trusts us, and so it is a way out as well.
    is_smarthost = isinstance(target, SmarthostSettings) and not isinstance(target, LMTPSettings)
    return is_smarthost or isinstance(target, RemoteSettings)


def _name(target: Target) -> str:
    return str(target) if isinstance(target, TargetRef) else "the world"
