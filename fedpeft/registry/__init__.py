"""The operator's shelf of versions: what a federation has published, and what its devices may fetch.

``shelf`` holds versions and heads, ``publisher`` adds to them, ``publish`` makes one of a run, ``routes`` serves a
shelf; what devices do with it is :mod:`fedpeft.device.versions`.
"""
