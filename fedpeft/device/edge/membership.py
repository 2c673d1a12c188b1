"""A device's place in a federation, on its disk.

======================  ===========================================================================
``identity/``           its keys and its certificate
``pinned.json``         whose certificates and sessions are believed
``ca.pem``              whose TLS certificates are believed
``scenario.toml``       what it has agreed to take part in
``member.json``         its name, its federation and the addresses of server and gate; written last
``node/``, ``clients``  what the rounds leave (``fedpeft.federation``)
``base/``, ``global/``  the base's graph and the newest global adapter, for use on the device
======================  ===========================================================================
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from fedpeft.errors import StoreError
from fedpeft.files import write_private

_MEMBER = "member.json"
_FIELDS = ("client", "federation", "server", "gate")
_REMEDY = "enrol it: `fedpeft client enrol TOKEN --home …`"


@dataclass(frozen=True)
class Membership:
    """Who a device is in which federation.

    Parameters
    ----------
    folder : Path
        The federation's, in the device's home.
    client, federation : str
    server, gate : str
        ``host:port`` of the server and of the gate.
    """

    folder: Path
    client: str
    federation: str
    server: str
    gate: str

    @property
    def identity(self) -> Path:
        """Folder of the keys and the certificate."""
        return self.folder / "identity"

    @property
    def pinned(self) -> Path:
        """What the app pins."""
        return self.folder / "pinned.json"

    @property
    def ca(self) -> Path:
        """The TLS authority."""
        return self.folder / "ca.pem"

    @property
    def scenario(self) -> Path:
        """What it takes part in."""
        return self.folder / "scenario.toml"

    def save(self) -> None:
        """Write it down; from here on the device is a member."""
        fields = {name: getattr(self, name) for name in _FIELDS}
        write_private(self.folder / _MEMBER, json.dumps(fields).encode())

    @classmethod
    def find(cls, folder: Path) -> Membership | None:
        """Return the membership in a folder; None where enrolment was never finished.

        Raises
        ------
        StoreError
            When the file is damaged.
        """
        path = folder / _MEMBER
        try:
            found = json.loads(path.read_bytes())
            return cls(folder, *(str(found[name]) for name in _FIELDS))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StoreError(f"membership {path}", str(error)[:80], ", ".join(_FIELDS), _REMEDY) from error

    @classmethod
    def read(cls, folder: Path) -> Membership:
        """Return the membership in a folder.

        Raises
        ------
        StoreError
            When there is none.
        """
        found = cls.find(folder)
        if found is None:
            raise StoreError(f"membership {folder}", "none", "a device that is enrolled", _REMEDY)
        return found
