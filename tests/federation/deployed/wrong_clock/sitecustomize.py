"""On the path of a Python process this makes its clock wrong by so many seconds as ``CLOCK_AHEAD`` says."""

import datetime
import os
import time

AHEAD = float(os.environ["CLOCK_AHEAD"])
_real, _datetime = time.time, datetime.datetime


class _Kind(type(_datetime)):
    def __instancecheck__(cls, value):  # what was made in C is one too
        return isinstance(value, _datetime)


class _Wrong(_datetime, metaclass=_Kind):
    @classmethod
    def now(cls, tz=None):
        return _datetime.now(tz) + datetime.timedelta(seconds=AHEAD)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.UTC).replace(tzinfo=None)


time.time = lambda: _real() + AHEAD
time.time_ns = lambda: int(time.time() * 1e9)
datetime.datetime = _Wrong
