"""`mailrider run` as clients find it: endpoints with and without login, and a real server behind its queue."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mailrider.endpoint.passwords import hash_password, write_passwords
from tests.peers.process import accepts, private_directory, running
from tests.support.loopback import free_port, new_address

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.peers.certificate import Certificate
    from tests.peers.receiver import Receiver

NAME = "house.example.org"
USER, PASSWORD = "anna", "open sesame"
CONFIGURATION = """
hostname {name}
state_dir state
runtime_dir {folder}/run
tls {chain} {key}
dns {{
    server 127.0.0.1:9
}}
target.smtp next {{
    host tcp://{receiver.address}:{receiver.port}
    starttls no
    min_tls_level none
}}
target.queue queue {{
    target &next
}}
submission tcp://{house.address}:{house.submission} tls://{house.address}:{house.submissions} {{
    auth users
    deliver_to &queue
}}
smtp tcp://{house.address}:{house.smtp} {{
    source signed.example.org {{
        modify {{
            dkim signed.example.org rsa
            dkim signed.example.org ed {{
                newkey_algo ed25519
            }}
        }}
        destination example.net {{
            deliver_to &queue
        }}
    }}
    destination example.net {{
        deliver_to &queue
    }}
    reject 550 5.7.1 "Not for us"
}}
"""


@dataclass(frozen=True)
class House:
    """Where it listens: for users with STARTTLS and with TLS at once, and for everybody."""

    address: str
    submission: int
    submissions: int
    smtp: int
    log: Path

    @property
    def dkim_records(self) -> list[str]:
        """What belongs into DNS: a line a key."""
        return [path.read_text().strip() for path in sorted(self.log.parent.glob("state/dkim_keys/*.dns"))]


@contextlib.contextmanager
def start_house(receiver: Receiver, certificate: Certificate) -> Iterator[House]:
    """A daemon that hands on to `receiver`, while the block lasts."""
    with private_directory() as folder:
        house = House(new_address(), free_port(), free_port(), free_port(), folder / "log")
        text = CONFIGURATION.format(
            name=NAME, folder=folder, chain=certificate.chain, key=certificate.key, receiver=receiver, house=house
        )
        (folder / "mailrider.conf").write_text(text)
        (folder / "state").mkdir()
        write_passwords(folder / "state" / "users", {USER: hash_password(PASSWORD)})
        command = [sys.executable, "-m", "mailrider", "-c", str(folder / "mailrider.conf"), "run"]
        with running(command, log=house.log, ready=lambda: accepts(house.address, house.smtp)):
            yield house
