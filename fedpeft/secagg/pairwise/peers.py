"""A client's run key and what it knows of its peers: certificates, run keys, chains."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace

from fedpeft.errors import ProtocolError
from fedpeft.secagg.pairwise.ratchet import Chain, ExchangeKey, agree
from fedpeft.secagg.pairwise.wire import ENTRY, pieces, require_length, split
from fedpeft.secagg.trust.certificate import CERTIFICATE, Certificate, Revocations
from fedpeft.secagg.trust.identity import Identity
from fedpeft.secagg.trust.manifest import Manifest
from fedpeft.signing.signature import PUBLIC, SIGNATURE, sign, verify


@dataclass(frozen=True)
class Entry:
    """A client's keys of a run.

    Parameters
    ----------
    certificate : Certificate
    exchange : bytes
        Its X25519 public key of the run.
    signature : bytes
        Its own, of enc("keys", manifest digest, id, exchange).
    """

    certificate: Certificate
    exchange: bytes
    signature: bytes

    @classmethod
    def of(cls, identity: Identity, key: ExchangeKey, manifest: Manifest) -> Entry:
        """Make one's own entry."""
        public = key.public_key().public_bytes_raw()
        signature = sign(identity.key, "keys", manifest.digest, identity.client, public)
        return cls(identity.certificate, public, signature)

    def to_bytes(self) -> bytes:
        """Return the bytes that travel."""
        return self.certificate.to_bytes() + self.exchange + self.signature

    @classmethod
    def from_bytes(cls, data: bytes) -> Entry:
        """Read an entry; nothing is checked but the length."""
        require_length("keys", data, ENTRY)
        certificate, exchange, signature = split(data, CERTIFICATE, PUBLIC, SIGNATURE)
        return cls(Certificate.from_bytes(certificate), exchange, signature)

    def check(self, client: str, manifest: Manifest, authority: bytes, now: float, revoked: Revocations) -> None:
        """Refuse keys that are not this client's, and those with which nobody could agree on anything.

        Raises
        ------
        ProtocolError
        """
        self.certificate.check(authority, manifest.federation, client, now, revoked)
        verify(self.certificate.public, self.signature, client, "keys", manifest.digest, client, self.exchange)
        agree(ExchangeKey.generate(), self.exchange)


@dataclass
class Peers:
    """The peers of one client.

    Parameters
    ----------
    client : str
    manifest : Manifest
    own : ExchangeKey
    entries : dict of str to Entry
        All whose keys were checked.
    chains : dict of str to Chain
        Pairs that have already begun.
    """

    client: str
    manifest: Manifest
    own: ExchangeKey
    entries: dict[str, Entry]
    chains: dict[str, Chain]

    @classmethod
    def alone(cls, client: str, manifest: Manifest) -> Peers:
        """Begin a run with a fresh key."""
        return cls(client, manifest, ExchangeKey.generate(), {}, {})

    def meet(self, client: str, entry: Entry) -> None:
        """Remember a peer whose entry was checked.

        Raises
        ------
        ProtocolError
            When the peer is known by another key.
        """
        known = self.entries.get(client)
        if known is not None and (known.exchange, known.certificate.public) != (
            entry.exchange,
            entry.certificate.public,
        ):
            raise ProtocolError(f"keys of {client}", "a second key in one run", "the key it joined with")
        self.entries[client] = entry

    def entry(self, client: str) -> Entry:
        """Return a peer's entry.

        Raises
        ------
        ProtocolError
            When it is not known.
        """
        if client not in self.entries:
            raise ProtocolError("peer", client, "one whose keys this client has met")
        return self.entries[client]

    def advance(self, step: int) -> None:
        """Move all chains on and forget where they were."""
        self.chains = {client: chain.at(step) for client, chain in self.chains.items()}

    def key(self, client: str, step: int) -> bytes:
        """Return a pair's key at a step, beginning the chain when there is none."""
        chain = self.chains.get(client)
        if chain is None:
            peer = self.entry(client).exchange
            chain = Chain.begin(self.own, peer, self.manifest.digest, (self.client, client))
        self.chains[client] = chain.at(step)
        return self.chains[client].key

    def copy(self) -> Peers:
        """Return peers that can be changed without changing these."""
        return replace(self, entries=dict(self.entries), chains=dict(self.chains))

    def to_bytes(self) -> bytes:
        """Return everything, secrets included, as JSON."""
        fields = {
            "own": self.own.private_bytes_raw().hex(),
            "entries": {client: entry.to_bytes().hex() for client, entry in self.entries.items()},
            "chains": {client: [chain.step, chain.key.hex()] for client, chain in self.chains.items()},
        }
        return json.dumps(fields).encode()

    @classmethod
    def from_bytes(cls, client: str, manifest: Manifest, data: bytes) -> Peers:
        """Read what :meth:`to_bytes` wrote; entries were checked when they were met.

        Raises
        ------
        ProtocolError
            When the file is damaged.
        """
        try:
            fields = json.loads(data)
            own = ExchangeKey.from_private_bytes(bytes.fromhex(fields["own"]))
            entries = {peer: Entry.from_bytes(bytes.fromhex(text)) for peer, text in fields["entries"].items()}
            chains = {peer: Chain(int(step), bytes.fromhex(key)) for peer, (step, key) in fields["chains"].items()}
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise ProtocolError("peers file", str(error)[:80], "a whole file", "leave this run") from error
        return cls(client, manifest, own, entries, chains)


def read_directory(clients: Sequence[str], directory: bytes) -> dict[str, Entry]:
    """Cut a directory into the entries of the clients that were announced, in their order.

    Raises
    ------
    ProtocolError
        For another length or a client named twice.
    """
    if len(set(clients)) != len(clients):
        raise ProtocolError("directory", f"{len(clients)} names", "different ones")
    require_length("directory", directory, ENTRY * len(clients))
    return dict(zip(clients, map(Entry.from_bytes, pieces(directory, ENTRY)), strict=True))
