"""Exporting: Run -> ONNX, OpenVINO or torch.export, checked against the run."""

from relocal.exporting.export import ExportConfig, export
from relocal.exporting.parity import Parity

__all__ = ["ExportConfig", "Parity", "export"]
