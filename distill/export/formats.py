"""An exported student in another folder and format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distill.export.onnx import Exported
    from distill.export.request import ExportProgress

FORMATS = ("hf", "onnx")


def export_student(
    run: Path, out: Path, kind: str, int8: bool, data: str | None, progress: ExportProgress
) -> Exported | None:
    """What an ONNX export measured; None for a copy of the Hugging Face folder."""
    from distill.errors import ConfigError
    from distill.export.folder import copy_export
    from distill.export.locate import locate

    if kind not in FORMATS:
        raise ConfigError(f"--format {kind}: use one of {', '.join(FORMATS)}")
    if kind == "onnx":
        from distill.export.onnx import export_onnx

        return export_onnx(locate(run), out, int8, data, progress)
    for option, is_given in (("--int8", int8), ("--data", data is not None)):
        if is_given:
            raise ConfigError(f"{option} goes with --format onnx: add it, or remove {option}")
    copy_export(locate(run).folder, out)
    return None
