"""What a run found: its record, the figures, the tables, the plots and one self-contained HTML page.

``record`` reads a run folder, ``figures`` reduces it to numbers, and ``tables``, ``plots`` and ``page`` show
them. Nothing here runs a model: a report can be rebuilt on a machine that has neither torch nor data.
"""

from fedpeft.report.figures import figures
from fedpeft.report.folder import read_record
from fedpeft.report.page import build

__all__ = ["build", "figures", "read_record"]
