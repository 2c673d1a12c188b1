"""The browser client as a folder for any static server: the built page, one base, chosen people's adapters."""

from fedpeft.web.page import built_page
from fedpeft.web.server import Server
from fedpeft.web.site import build_site

__all__ = ["Server", "build_site", "built_page"]
