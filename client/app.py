"""The ClientApp that Flower starts; everything it does is in the installed package."""

from pathlib import Path

from fedpeft.federation.client import client_app
from fedpeft.federation.locate import APP

APP.append(Path(__file__).resolve().parent.parent)
app = client_app()
