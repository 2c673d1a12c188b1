"""Tokens: what they say, for whom, how often and until when."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedpeft.errors import DataError, ProtocolError, TokenError
from fedpeft.gate.token import Token
from fedpeft.gate.tokens import Tokens
from fedpeft.secagg.trust.certificate import Enrolment
from fedpeft.secagg.trust.enrolling import parse_request
from fedpeft.secagg.trust.registry import Registry
from fedpeft.signing.signature import SigningKey
from tests.gate.conftest import Place

AUTHORITY = bytes(range(32))


def request(client: str = "ada", federation: str = "chat") -> Enrolment:
    return Enrolment.of(client, federation, SigningKey.generate())


def redeem(place: Place, token: str, asked: Enrolment):
    read = Token.parse(token)
    return place.tokens.redeem(read.id, read.secret, asked, 365)


@given(st.text(min_size=1, max_size=100), st.integers(1, 65535))
def test_what_a_token_says_is_what_it_was_made_of(client: str, port: int) -> None:
    token = Token.fresh(f"fed.example.org:{port}", AUTHORITY, client)
    assert Token.parse(f" {token}\n") == token
    assert token.secret.hex() not in repr(token)
    assert len(token.secret) * 8 >= 128


@given(st.data())
def test_a_token_with_any_character_wrong_is_none_and_is_not_repeated(data: st.DataObject) -> None:
    text = str(Token.fresh("localhost:1", AUTHORITY, "ada"))
    at = data.draw(st.integers(0, len(text) - 2))  # the last one has bits that mean nothing
    other = data.draw(st.sampled_from("Aa0_-!").filter(lambda c: c != text[at]))
    with pytest.raises(TokenError) as error:
        Token.parse(text[:at] + other + text[at + 1 :])
    assert text[:20] not in str(error.value)


@pytest.mark.parametrize(
    "text",
    ["", "x", "é" * 50, "A" * 5000, "-", str(Token.fresh("h:1", AUTHORITY, "a"))[:-3]],
    ids=["nothing", "short", "other letters", "long", "a dash", "cut off"],  # equal in all processes, as tokens are not
)
def test_what_is_no_token_is_said_to_be_none(text: str) -> None:
    with pytest.raises(TokenError, match="fedpeft server token"):
        Token.parse(text)


def test_a_token_is_good_once_and_for_the_same_key_again(place: Place) -> None:
    token, asked = place.token(), request()
    first = redeem(place, token, asked)
    place.clock.now += 7200  # the answer was lost, and the token has expired meanwhile
    assert redeem(place, token, asked) == first
    with pytest.raises(TokenError):
        redeem(place, token, request())
    assert [entry.client for entry in place.registry.entries()] == ["ada"]
    assert [entry.used for entry in place.tokens.entries()] == [True]


def test_expired_unknown_revoked_replaced_and_anothers_tokens_are_refused_alike(place: Place) -> None:
    expired, bens = place.token(hours=0.5), place.token("ben")
    said = set()

    def refused(token: str, asked: Enrolment) -> None:
        with pytest.raises(TokenError) as error:
            redeem(place, token, asked)
        said.add(str(error.value))

    place.clock.now += 3600 / 2
    refused(expired, request())
    refused(bens, request("ada"))
    refused(str(Token.fresh("localhost:1", AUTHORITY, "ada")), request())
    replaced, void = place.token("cleo"), place.token("cleo")
    refused(replaced, request("cleo"))
    assert place.tokens.revoke("cleo") == 1
    refused(void, request("cleo"))
    read = Token.parse(bens)
    with pytest.raises(TokenError) as error:
        place.tokens.redeem(read.id, bytes(18), request("ben"), 1)
    assert {*said, str(error.value)} == said
    assert len(said) == 1
    assert place.registry.entries() == []
    redeem(place, bens, request("ben"))


def test_of_two_who_race_for_a_token_one_gets_a_certificate(place: Place) -> None:
    token, asked = place.token(), [request() for _ in range(8)]

    def attempt(mine: Enrolment) -> bool:
        try:
            fresh = Place(place.folder, Tokens(Registry(place.folder / "registry"), place.clock), place.clock)
            return redeem(fresh, token, mine).public == mine.public
        except TokenError:
            return False

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, asked)) == 1
    assert len(place.registry.entries()) == 1


def test_a_request_that_proves_nothing_leaves_the_token_as_it_was(place: Place) -> None:
    token, good = place.token(), request()
    with pytest.raises(ProtocolError, match="signature"):
        redeem(place, token, Enrolment("ada", good.public, bytes(64)))
    with pytest.raises(ProtocolError, match="signature"):
        redeem(place, token, request(federation="other"))
    assert redeem(place, token, good).public == good.public


def test_a_key_that_was_revoked_does_not_come_back_with_its_token(place: Place) -> None:
    token, asked = place.token(), request()
    redeem(place, token, asked)
    place.registry.revoke("ada")
    for again in (token, place.token()):
        with pytest.raises(ProtocolError, match="revoked"):
            redeem(place, again, asked)
    redeem(place, place.token(), request())


def test_only_the_hash_of_a_secret_is_kept(place: Place) -> None:
    secret = Token.parse(place.token()).secret
    kept = b"".join(path.read_bytes() for path in (place.folder / "registry").iterdir())
    assert secret not in kept
    assert secret.hex().encode() not in kept


@pytest.mark.parametrize("name", ["", "../x", "a,b", "global", "a b", "x" * 200])
def test_a_name_that_could_be_no_clients_gets_no_token(place: Place, name: str) -> None:
    with pytest.raises(DataError, match="client name"):
        place.token(name)


@given(st.binary(max_size=200))
def test_garbage_is_no_request(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        parse_request(data, "chat", "request")


def test_a_registry_of_before_there_were_tokens_takes_them(tmp_path: Path) -> None:
    registry = Registry.create(tmp_path / "registry", "old")
    assert Tokens(registry).entries() == []
