"""A device enrols: keys of its own, a request with its token, a certificate that is checked before it is kept.

1. Ask the gate who it is, believing nothing, for the certificate of its authority; that is the right one if its sha256
   is the token's.
2. Ask again, over TLS that this authority vouches for: what the app pins, the scenario, the server's address.
3. Make the keys, unless they are there, and send the request and the token's secret.
4. Keep the certificate, if it is the pinned authority's for this key; then the rest; ``member.json`` is last.

Killed anywhere, the same call goes on: the keys are made once, and the gate gives one key one certificate.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from dataclasses import dataclass
from hmac import compare_digest
from pathlib import Path
from typing import Any

from fedpeft.device.edge.home import Home
from fedpeft.device.edge.membership import Membership
from fedpeft.errors import GateError, StoreError, TokenError
from fedpeft.files import private_folder, write_private, write_whole
from fedpeft.gate.notice import ENROL, FEDERATION, LONGEST, Notice
from fedpeft.gate.token import Token
from fedpeft.secagg.trust.enrolling import Pinned, accept_answer, ask
from fedpeft.signing.tls import fingerprint

_TIMEOUT = 30.0
_FORBIDDEN, _BUSY = 403, 429


def enrol(home: Path, token: str) -> Membership:
    """Make a device a member of the federation that a token invites it to.

    Parameters
    ----------
    home : Path
        The app's private folder, as of :class:`fedpeft.device.EdgeClient`.
    token : str
        What `fedpeft server token` printed.

    Returns
    -------
    Membership

    Raises
    ------
    TokenError
        When it is no token, or the gate does not accept it.
    GateError
        When the gate does not answer, or not as the token's gate would; worth another attempt.
    StoreError
        When this home belongs to another client or federation.
    """
    read = Token.parse(token)
    notice = _notice(read)
    place = Home(private_folder(home)).federation
    _require_same(place, read.client, notice.federation)
    member = Membership(private_folder(place), read.client, notice.federation, notice.server, read.gate)
    pinned = Pinned.parse(notice.pinned.encode(), read.gate)
    request = ask(read.client, member.identity, pinned)
    proof = (read.id + read.secret).hex()
    sent = json.dumps({"token": proof, "request": request}).encode()
    found = _Line(read, notice.ca).ask("POST", ENROL, sent)
    accept_answer(member.identity, _answer(found, read), f"answer of {read.gate}", pinned, time.time())
    write_private(member.pinned, notice.pinned.encode())
    write_whole(member.ca, notice.ca)
    write_whole(member.scenario, notice.scenario)
    member.save()
    return member


@dataclass(frozen=True)
class _Line:
    """To a gate; without an authority, to whoever answers."""

    token: Token
    authority: str = ""

    def ask(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """Send one request and return the body of the answer."""
        where, host = f"gate {self.token.gate}", self.token.gate
        try:
            connection = http.client.HTTPSConnection(host, timeout=_TIMEOUT, context=self._trust())
            try:
                connection.request(method, path, body, {"Content-Type": "application/json"} if body else {})
                response = connection.getresponse()
                found = response.read(LONGEST + 1)
            finally:
                connection.close()
        except (OSError, http.client.HTTPException) as error:
            remedy = "is it running, and is this its address?"
            raise GateError(where, f"{type(error).__name__}: {error}"[:160], "an answer", remedy) from error
        if response.status != http.client.OK:
            raise _refusal(where, response.status, found)
        if len(found) > LONGEST:
            raise GateError(where, "a longer answer", f"at most {LONGEST} bytes")
        return found

    def _trust(self) -> ssl.SSLContext:
        if self.authority:
            return ssl.create_default_context(cadata=self.authority)
        # What comes over this is one certificate, and it is believed for its hash alone.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        return context


def _notice(token: Token) -> Notice:
    """Learn what the gate says of itself, once it is known to be the token's."""
    where = f"gate {token.gate}"
    claimed = Notice.parse(_Line(token).ask("GET", FEDERATION), where).ca
    if not compare_digest(fingerprint(claimed.encode(), where), token.authority):
        raise TokenError(where, "another authority", "the one that the token names", "ask the operator for a new token")
    return Notice.parse(_Line(token, claimed).ask("GET", FEDERATION), where)


def _answer(found: bytes, token: Token) -> bytes:
    try:
        return str(json.loads(found)["answer"]).encode()
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise GateError(f"gate {token.gate}", str(error)[:80], "JSON with an answer") from error


def _refusal(where: str, status: int, body: bytes) -> GateError | TokenError:
    try:
        found: Any = json.loads(body)["error"]["message"]
        said = str(found)[:200]
    except (ValueError, KeyError, TypeError, RecursionError):
        said = f"HTTP {status}"
    if status == _FORBIDDEN:
        return TokenError("token", said, "one that the gate accepts", "ask the operator for a new one")
    remedy = "try again in a minute" if status == _BUSY or status >= http.client.INTERNAL_SERVER_ERROR else ""
    return GateError(where, said, "a certificate", remedy)


def _require_same(place: Path, client: str, federation: str) -> None:
    """Refuse a home whose sessions, keys and adapters are another's."""
    found = Membership.find(place)
    if found is not None and (found.client, found.federation) != (client, federation):
        mine = f"{found.client} of {found.federation}"
        raise StoreError(f"home {place.parent}", mine, f"{client} of {federation}", "use another --home")
