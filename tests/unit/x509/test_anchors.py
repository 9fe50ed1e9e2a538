"""Trusted roots from files and directories."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from mailrider.errors import ConfigError
from mailrider.x509.anchors import Anchors, load_anchors
from mailrider.x509.certificate import parse_certificate
from tests.support.certificates import authority, issue

if TYPE_CHECKING:
    from pathlib import Path

ONE, TWO, THREE = authority("One"), authority("Two"), authority("Three")
LEAF = parse_certificate(issue(ONE).der)


def test_a_bundle_with_comments_between(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(b"# One\n" + ONE.pem + b"\n# Two\r\n" + TWO.pem.replace(b"\n", b"\r\n") + b"# end\n")
    assert len(load_anchors([bundle])) == 2


def test_the_old_label_and_keys_beside_it(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_bytes(ONE.key_pem + ONE.pem.replace(b" CERTIFICATE", b" X509 CERTIFICATE"))
    assert len(load_anchors([str(bundle)])) == 1


def test_a_single_certificate_in_der(tmp_path: Path) -> None:
    (tmp_path / "one.cer").write_bytes(ONE.der)
    assert load_anchors([tmp_path / "one.cer"]).concerning([LEAF]) == (parse_certificate(ONE.der),)


def test_the_same_certificate_counts_once(tmp_path: Path) -> None:
    (tmp_path / "one.pem").write_bytes(ONE.pem + ONE.pem)
    (tmp_path / "one.cer").write_bytes(ONE.der)
    assert len(load_anchors([tmp_path / "one.pem", tmp_path / "one.cer"])) == 1


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "No such file"),
        (b"", "the certificate is missing"),
        (b"hello\n", "the certificate is missing"),
        (ONE.key_pem, "there is no certificate in PEM"),
        (ONE.pem[:-10], "there is no certificate in PEM"),
        (b"-----BEGIN CERTIFICATE-----\nA\n-----END CERTIFICATE-----\n", "damaged PEM"),
        (b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "the certificate is missing"),
        (ONE.pem + TWO.pem.replace(b"MII", b"MIA", 1), "is not DER"),
    ],
)
def test_a_file_that_is_no_good_is_a_configuration_error(tmp_path: Path, content: bytes | None, reason: str) -> None:
    path = tmp_path / "root.pem"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        load_anchors([path])
    assert str(path) in str(caught.value)


def test_every_file_that_is_no_good_is_named(tmp_path: Path) -> None:
    junk = tmp_path / "junk.pem"
    junk.write_text("junk")
    (tmp_path / "good.pem").write_bytes(ONE.pem)
    with pytest.raises(ConfigError) as caught:
        load_anchors([tmp_path / "absent.pem", tmp_path / "good.pem", junk])
    assert [problem.message for problem in caught.value.problems] == [
        f"root_ca: no certificates can be read from {tmp_path}/absent.pem: No such file or directory",
        f"root_ca: no certificates can be read from {junk}: the certificate is missing",
    ]


def test_a_directory_counts_its_hashed_files_only(tmp_path: Path) -> None:
    (tmp_path / "5f15c80c.0").write_bytes(ONE.pem)
    (tmp_path / "5f15c80c.1").write_bytes(TWO.pem)
    (tmp_path / "three.pem").write_bytes(THREE.pem)
    assert len(load_anchors([], [tmp_path])) == 2


def test_what_is_broken_in_a_directory_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "00000000.0").write_bytes(b"junk")
    (tmp_path / "00000001.0").symlink_to(tmp_path / "nowhere")
    (tmp_path / "00000002.0").mkdir()
    (tmp_path / "00000003.0").write_bytes(ONE.pem)
    assert len(load_anchors([], [tmp_path, tmp_path / "missing"])) == 1


def test_only_the_anchors_that_concern_a_chain_are_looked_at() -> None:
    anchors = Anchors(parse_certificate(one.der) for one in (ONE, TWO, THREE))
    assert anchors.concerning([LEAF]) == (parse_certificate(ONE.der),)
    assert anchors.concerning([LEAF, parse_certificate(TWO.der)]) == tuple(
        parse_certificate(one.der) for one in (ONE, TWO)
    )
    assert anchors.concerning([]) == ()


def test_names_that_openssl_calls_equal_concern_each_other() -> None:
    shouting = parse_certificate(authority("ONE  ").der)
    assert Anchors([shouting]).concerning([LEAF]) == (shouting,)
