"""``distill predict``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, get_args

import typer

from distill.cli.options import AsJson
from distill.cli.output import errors, near, print_json, say

Student = Annotated[
    Path,
    typer.Argument(metavar="RUN_OR_STUDENT", help="A run folder, or an exported student."),
]
Data = Annotated[str, typer.Option(help="Parquet, Arrow, JSONL or CSV; needs no label column.")]
Out = Annotated[Path, typer.Option(help="File to write: .parquet, .arrow, .jsonl or .csv.")]
TextColumn = Annotated[
    str | None,
    typer.Option(
        help="Text column. Default: that of the run, else text or code.", show_default=False
    ),
]
PairColumn = Annotated[
    str | None, typer.Option(help="Column with the second text of a pair.", show_default=False)
]
PromptColumn = Annotated[
    str | None,
    typer.Option(
        help="Language models: column with prompts. Default: that of the run, else prompt or text.",
        show_default=False,
    ),
]
MessagesColumn = Annotated[
    str | None,
    typer.Option(
        help="Language models: column with chats; a final answer is ignored. Default: that of "
        "the run, else messages.",
        show_default=False,
    ),
]
ToolsColumn = Annotated[
    str | None,
    typer.Option(
        help="Language models: column with the tool schemas of the chats.", show_default=False
    ),
]
MaxLength = Annotated[
    int | None,
    typer.Option(
        min=4,
        help="Classifiers: maximum tokens of a row. Default: as in training.",
        show_default=False,
    ),
]
MaxNewTokens = Annotated[
    int,
    typer.Option(min=1, help="Language models: maximum number of tokens to generate for a row."),
]
BatchSize = Annotated[
    int | None,
    typer.Option(
        min=1, help="Rows of a batch. Default: 64; for language models 8.", show_default=False
    ),
]
DeviceName = Annotated[str, typer.Option(help="auto (the GPU if there is one), cpu or cuda.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


def predict(
    student: Student,
    data: Data,
    out: Out,
    text_column: TextColumn = None,
    pair_column: PairColumn = None,
    prompt_column: PromptColumn = None,
    messages_column: MessagesColumn = None,
    tools_column: ToolsColumn = None,
    max_length: MaxLength = None,
    max_new_tokens: MaxNewTokens = 64,
    batch_size: BatchSize = None,
    device: DeviceName = "auto",
    overwrite: Overwrite = False,
    as_json: AsJson = False,
) -> None:
    """Write labels and probabilities, or generated text, for every row of a file.

    New columns follow the file's own: of classifiers prediction, probability and
    probability.LABEL for each label; of language models generated.
    """
    with errors(as_json):
        from distill.config import Device
        from distill.errors import ConfigError
        from distill.export.prediction import check_out
        from distill.export.prediction import predict as predict_rows
        from distill.export.request import ColumnOptions, PredictionRequest
        from distill.report.progress import Progress

        if device not in get_args(Device):
            raise ConfigError(f"--device {device}: use one of {', '.join(get_args(Device))}")
        check_out(out, overwrite)
        columns = ColumnOptions(
            text_column, pair_column, prompt_column, messages_column, tools_column
        )
        request = PredictionRequest(
            student,
            data,
            columns,
            max_length,
            max_new_tokens,
            batch_size,
            device,  # type: ignore[arg-type]  (checked above)
        )
        with Progress() as progress:
            predicted = predict_rows(request, progress)
        predicted.write(out)
        say(f"rows      {predicted.num_rows:,}")
        say(f"columns   {_listed(list(predicted.added))}")
        say(f"written   {near(out.absolute())}")
        if as_json:
            print_json(
                {
                    "rows": predicted.num_rows,
                    "columns": list(predicted.added),
                    "out": str(out),
                    "notes": list(predicted.notes),
                }
            )


def _listed(columns: list[str]) -> str:
    """The first four of them: there is one for each label."""
    more = f" and {len(columns) - 4} more" if len(columns) > 4 else ""
    return ", ".join(columns[:4]) + more
