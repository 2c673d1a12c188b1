"""From torch to onnxruntime: a base as one graph, each adapter as a small file that swaps over it."""

from fedpeft.export.adapter import export_adapter
from fedpeft.export.base import export_base
from fedpeft.export.merged import export_merged
from fedpeft.export.options import ExportOptions
from fedpeft.export.run import export_run

__all__ = ["ExportOptions", "export_adapter", "export_base", "export_merged", "export_run"]
