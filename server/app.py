"""The ServerApp that Flower starts; everything it does is in the installed package."""

from pathlib import Path

from fedpeft.federation.locate import APP
from fedpeft.federation.server import server_app

APP.append(Path(__file__).resolve().parent.parent)
app = server_app()
