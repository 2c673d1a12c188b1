"""Parameter-efficient methods: one file each, all of one shape, registered in one line."""

from fedpeft.methods.attached import Attached
from fedpeft.methods.method import METHODS, Method, parse_method

__all__ = ["METHODS", "Attached", "Method", "parse_method"]
