"""Everything that ``distill report`` writes."""

from __future__ import annotations

from pathlib import Path

from distill.errors import RecordError
from distill.names import folder_name
from distill.report.frontier import write_frontier
from distill.report.page import write_page
from distill.tracking.read import Record


def write_report(record: Record, out: str | Path | None = None) -> list[Path]:
    """``report.html``, and next to it the files of a sweep. Returns the files, the page first.

    Raises RecordError where ``out`` is a file.
    """
    folder = Path(out) if out is not None else Path("reports") / folder_name(record.experiment)
    if folder.exists() and not folder.is_dir():
        raise RecordError(f"--out {folder} is a file: give a folder")
    page = write_page(record, folder / "report.html")
    teachers = record.teacher_accuracy
    return [
        page,
        *write_frontier(
            folder, record.trials, record.goals, record.searched, record.rows, teachers
        ),
    ]
