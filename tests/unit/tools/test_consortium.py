"""Founding a consortium: who gets what, and that nothing is ever overwritten."""

from __future__ import annotations

import datetime as dt
import errno

import pytest
from cryptography import x509

from fog_node.errors import ConfigurationError
from fog_node.network import certificates
from fog_node.protocol.founding import parse_founding
from tools import consortium
from tools.errors import ToolError

MEMBERS = {
    "seoul": consortium.VALIDATOR_ROLES,
    "busan": consortium.VALIDATOR_ROLES,
    "daegu": consortium.VALIDATOR_ROLES,
    "plant": frozenset({"operator", "customer"}),
}


@pytest.fixture
def founded(tmp_path):
    return consortium.create(tmp_path / "c", "ours", MEMBERS, hosts=("fog.example", "10.0.0.7"))


def test_the_founding_file_lists_the_members_in_order(founded) -> None:
    founding = parse_founding(founded.founding_file.read_bytes())
    assert founding == founded.founding == consortium.Consortium.open(founded.directory).founding
    assert {m.name: m.roles for m in founding.members} == MEMBERS
    assert [m.name for m in founding.validators] == ["seoul", "busan", "daegu"]
    for member in founding.members:
        assert founded.signing_key(member.name).kid == member.kid


def test_only_the_owner_may_read_keys(founded) -> None:
    files = [path for path in founded.directory.rglob("*") if path.is_file()]
    modes = {str(p.relative_to(founded.directory)): p.stat().st_mode & 0o777 for p in files}
    secret = {name for name, mode in modes.items() if mode == 0o600}
    assert secret == {
        "authority/ca.key",
        *(f"members/{name}/{file}" for name in MEMBERS for file in ("signing.key", "tls.key")),
    }
    assert {modes[name] for name in modes.keys() - secret} == {0o644}


def test_each_member_gets_a_certificate_of_its_own(founded) -> None:
    authority = founded.founding.authority
    now = dt.datetime.now(dt.UTC)
    for member in founded.founding.members:
        own = founded.member_directory(member.name)
        path = own / "tls.crt"
        certificate = certificates.check_certificate(path, authority, member.kid, now)
        assert certificates.member_of(certificate) == member.kid
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        assert set(names.get_values_for_type(x509.DNSName)) >= {"localhost", "fog.example"}
        assert "10.0.0.7" in map(str, names.get_values_for_type(x509.IPAddress))
        certificates.server_context(authority, path, own / "tls.key")
        tls_key = consortium.load_key(own / "tls.key")
        assert tls_key.kid != member.kid


def test_the_authority_is_the_one_of_the_founding_file(founded) -> None:
    pem = x509.load_pem_x509_certificate(founded.authority_certificate.read_bytes())
    assert pem == x509.load_der_x509_certificate(founded.founding.authority)


@pytest.mark.parametrize("field", ["chain_id", "founded", "quorum", "parameters", "members"])
def test_what_it_holds_is_said(founded, field) -> None:
    shown = consortium.describe(founded.founding)
    assert shown["name"] == "ours"
    assert shown["chain_id"] == founded.founding.chain_id.hex()
    assert shown["quorum"] == "2 of 3 (majority)"
    assert shown[field]


def test_a_directory_that_holds_anything_is_left_alone(founded) -> None:
    before = {p: p.read_bytes() for p in founded.directory.rglob("*") if p.is_file()}
    with pytest.raises(ToolError, match="is not empty; name a new directory"):
        consortium.create(founded.directory, "again", MEMBERS)
    assert {p: p.read_bytes() for p in founded.directory.rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("members", "rule", "why"),
    [
        ({"plant": frozenset({"operator"})}, "majority", "must be validators"),
        ({"Seoul": consortium.VALIDATOR_ROLES}, "majority", "may hold a-z, 0-9 and '-' only"),
        ({"x" * 33: consortium.VALIDATOR_ROLES}, "majority", "longer than 32"),
        ({"seoul": frozenset({"validator", "king"})}, "majority", "'king' is not a role"),
        (MEMBERS, "dictator", "is not one of majority, two-thirds"),
    ],
)
def test_what_makes_no_consortium_is_refused_and_leaves_nothing(
    tmp_path, members, rule, why
) -> None:
    with pytest.raises(ToolError, match=why):
        consortium.create(tmp_path / "c", "ours", members, quorum_rule=rule)
    assert not (tmp_path / "c").exists()


@pytest.mark.parametrize("host", ["", "two words", "bücher.example", "-x", "a" * 300, "http://x"])
def test_what_is_no_host_gets_no_certificate(founded, tmp_path, host) -> None:
    with pytest.raises(ConfigurationError, match="is neither a host name"):
        consortium.issue_certificate(founded, "broker", tmp_path / "b", hosts=(host,))
    with pytest.raises(ConfigurationError, match="is neither a host name"):
        consortium.create(tmp_path / "d", "ours", MEMBERS, hosts=(host,))
    assert not list(tmp_path.glob("[bd]"))


def test_a_name_too_long_for_a_certificate_is_refused(founded, tmp_path) -> None:
    with pytest.raises(ConfigurationError, match="has not 1 to 64 characters"):
        consortium.issue_certificate(founded, "x" * 65, tmp_path)


def test_half_a_key_is_not_left(tmp_path, monkeypatch) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(consortium.os, "fsync", full)
    with pytest.raises(ToolError, match="No space left on device; make room"):
        consortium.write_secret(tmp_path / "key", b"secret")
    assert list(tmp_path.iterdir()) == []


def test_a_certificate_is_renewed_for_the_same_member(founded, tmp_path) -> None:
    path = consortium.issue_certificate(founded, "seoul", tmp_path / "new", days=3)
    kid = founded.signing_key("seoul").kid
    now = dt.datetime.now(dt.UTC)
    renewed = certificates.check_certificate(path, founded.founding.authority, kid, now)
    left = renewed.not_valid_after_utc - now
    assert dt.timedelta(days=2) < left <= dt.timedelta(days=3)
    for name in ("tls.crt", "tls.key"):
        with pytest.raises(ToolError, match=rf"{name}: exists; move it away first"):
            consortium.issue_certificate(founded, "seoul", tmp_path / "new")
        (tmp_path / "new" / name).unlink()


def test_a_server_gets_a_certificate_that_names_no_member(founded, tmp_path) -> None:
    path = consortium.issue_certificate(founded, "broker", tmp_path, hosts=("b.example",))
    certificate = x509.load_pem_x509_certificate(path.read_bytes())
    assert certificates.member_of(certificate) is None
    assert (tmp_path / "tls.key").stat().st_mode & 0o777 == 0o600


def test_a_certificate_that_will_not_do_is_named_with_the_remedy(founded, tmp_path) -> None:
    kid = founded.signing_key("seoul").kid
    authority = founded.founding.authority
    now = dt.datetime.now(dt.UTC)
    other = consortium.create(tmp_path / "other", "other", MEMBERS)

    def refusal(path, when=now) -> str:
        with pytest.raises(certificates.ConfigurationError) as refused:
            certificates.check_certificate(path, authority, kid, when)
        assert str(path) in str(refused.value)
        return str(refused.value)

    own = founded.member_directory("seoul") / "tls.crt"
    remedy = "have the authority issue one: fogline consortium issue-certificate"
    for path, when, why in (
        (founded.member_directory("busan") / "tls.crt", now, f"is another member's; {remedy}"),
        (other.member_directory("seoul") / "tls.crt", now, "is not issued by the authority"),
        (own, now + dt.timedelta(days=900), "expired at"),
        (own, now - dt.timedelta(days=1), "is not valid before"),
    ):
        assert why in refusal(path, when)
        assert remedy in refusal(path, when)
    assert "give a PEM file" in refusal(founded.founding_file)
    assert "cannot be read" in refusal(tmp_path / "nothing")


def test_files_that_cannot_be_read_are_named(tmp_path) -> None:
    junk = tmp_path / "junk"
    junk.write_bytes(b"junk")
    for load in (consortium.load_founding, consortium.load_key):
        with pytest.raises(ToolError, match="No such file or directory; give"):
            load(tmp_path / "nothing")
        with pytest.raises(ToolError, match=str(junk)):
            load(junk)


def test_it_is_said_whose_certificate_a_name_gets(founded) -> None:
    assert consortium.certificate_for(founded, "seoul") == "the member seoul"
    words = consortium.certificate_for(founded, "soeul")
    assert "server named soeul" in words
    assert "seoul, busan, daegu, plant" in words
    assert "--request" in words
