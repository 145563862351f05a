"""A language model as a student: generated text for prompts and chats."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from transformers import PreTrainedModel

from distill.config import Columns
from distill.data.chat_template import ChatTemplate
from distill.data.chat_tokens import ChatTokens
from distill.data.chats import chats_in, tools_in
from distill.data.columns import texts_in, values_in
from distill.data.file_format import Kept
from distill.data.sequences import prefix_of
from distill.data.source import File, column_names, listed
from distill.data.turns import ANSWER
from distill.errors import ConfigError, DataError, ModelError
from distill.evaluation.generation import write_answers
from distill.export.locate import Located
from distill.export.request import (
    Answered,
    ColumnOptions,
    ExportProgress,
    PredictionRequest,
    PredictionSource,
    batches,
    check_new_columns,
    check_options,
    device_of,
    some,
    usual_column,
)
from distill.models.language import load_language_model
from distill.models.load import load_tokenizer, usable_positions

GENERATED = "generated"
PROMPTS = 8
"""Prompts that are continued together."""
USUAL_PROMPTS = ("prompt", "text")


class LanguageModelStudent:
    """Continues prompts, answers chats."""

    task: ClassVar[str] = "language_model"
    text_column: ClassVar[str] = "prompt"

    def columns(self, student: Located, named: ColumnOptions, file: File) -> Columns:
        texts = {"--text-column": named.text, "--pair-column": named.pair}
        check_options(texts, student.folder, "a prompt")
        experiment = student.experiment
        return _columns(named, None if experiment is None else experiment.data.columns, file)

    def predict(
        self,
        student: Located,
        source: PredictionSource,
        request: PredictionRequest,
        progress: ExportProgress,
    ) -> Answered:
        check_new_columns([GENERATED], source.content, request.data)
        model: Any = load_language_model(student.folder)
        model.to(device_of(request.device))
        tokenizer: Any = load_tokenizer(student.folder)
        prompts, ends, notes = _prompts(student, source, tokenizer)
        _check_room(prompts, model, request)
        texts: list[str] = [""] * len(prompts)
        size = request.batch_size or PROMPTS
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        for start in range(0, len(order), size):
            rows = order[start : start + size]
            answers = write_answers(
                model,
                tokenizer,
                [prompts[row] for row in rows],
                request.max_new_tokens,
                size,
                turn_ends=ends,
            )
            for row, text in zip(rows, answers, strict=True):
                texts[row] = text
            progress.update("generating", start + len(rows), len(prompts))
        return Answered({GENERATED: texts}, notes)

    def check_onnx(self, student: Located) -> None:
        raise ModelError(
            f"{student.folder} is a language model: only classifiers can be exported to ONNX: use "
            "--format hf"
        )


def _columns(named: ColumnOptions, own: Columns | None, file: File) -> Columns:
    """``prompt`` or ``messages``; the text column of a model of plain text is its prompt."""
    if named.prompt is not None and named.messages is not None:
        raise ConfigError("give --prompt-column or --messages-column, not both")
    messages, prompt, tools = named.messages, named.prompt, named.tools
    if messages is None and prompt is None:
        if own is not None:
            messages, prompt = own.messages, own.prompt or own.text
            tools = tools or own.tools
            there = column_names(file)
            if (read := messages or prompt) is not None and read not in there:
                raise DataError(
                    f"{file.uri} has no column {read}, which the run read, it has "
                    f"{listed(there)}: name chats by --messages-column, or prompts by "
                    "--prompt-column"
                )
        elif "messages" in column_names(file):
            messages = "messages"
        else:
            prompt = usual_column(USUAL_PROMPTS, file, "--prompt-column or --messages-column")
    if messages is not None:
        return Columns.model_validate({"messages": messages, "tools": tools})
    if named.tools is not None:
        raise ConfigError("--tools-column goes with --messages-column: remove it")
    return Columns.model_validate({"prompt": prompt, "completion": prompt})


def _prompts(
    student: Located, source: PredictionSource, tokenizer: Any
) -> tuple[list[list[int]], tuple[int, ...], tuple[str, ...]]:
    """The tokens of each prompt, the tokens that end an answer of a chat, and notes."""
    experiment, columns = student.experiment, source.columns
    template = ChatTemplate()
    as_chat = False
    notes: tuple[str, ...] = ()
    if experiment is not None:
        arguments = json.dumps(experiment.data.template_arguments, sort_keys=True)
        template = ChatTemplate(arguments=arguments)
        as_chat = experiment.data.prompt_as_chat or experiment.data.columns.messages is not None
    elif columns.messages is None and tokenizer.chat_template:
        notes = (
            "prompts are continued as plain text, without the tokenizer's chat template: give "
            "chats by --messages-column to use it",
        )
    if columns.messages is None and not as_chat:
        return _text_prompts(source.files, columns, tokenizer), (), notes
    chat_tokens = ChatTokens(tokenizer, template)
    prompts, num_answered = _chat_prompts(source.files, columns, chat_tokens)
    if num_answered:
        notes = (
            f"{num_answered:,} of {len(prompts):,} chats end with an answer, which is ignored "
            "and generated again",
        )
    return prompts, chat_tokens.ends, notes


def _text_prompts(files: Sequence[File], columns: Columns, tokenizer: Any) -> list[list[int]]:
    """In the model's tokens, as in training: behind what the tokenizer puts in front."""
    assert columns.prompt is not None
    prefix = prefix_of(tokenizer)
    prompts: list[list[int]] = []
    for batch, file, _ in batches(files, (columns.prompt,)):
        texts = values_in(batch, columns.prompt, "data.columns.prompt", file)
        found = tokenizer([text or "" for text in texts], add_special_tokens=False, verbose=False)[
            "input_ids"
        ]
        prompts += [[*prefix, *ids] for ids in found]
    return some(prompts, files)


def _chat_prompts(
    files: Sequence[File], columns: Columns, chat_tokens: ChatTokens
) -> tuple[list[list[int]], int]:
    """The tokens before an answer, as in training; and how many chats had one already."""
    prompts: list[list[int]] = []
    num_answered = 0
    for chat, tools in _chats(files, columns):
        if chat[-1]["role"] == "assistant" and len(chat) > 1:
            chat = chat[:-1]
            num_answered += 1
        schemas = None if tools is None else json.loads(tools)
        found = chat_tokens.prompt([*chat, ANSWER], len(prompts) + 1, schemas)
        assert found is not None
        prompts.append(found[0])
    return some(prompts, files), num_answered


def _chats(files: Sequence[File], columns: Columns) -> Iterator[tuple[list[Any], str | None]]:
    if columns.messages is None:
        assert columns.prompt is not None
        for batch, file, first_row in batches(files, (columns.prompt,)):
            for text in texts_in(batch, columns.prompt, "data.columns.prompt", file, first_row):
                yield [{"role": "user", "content": text}], None
        return
    names = [columns.messages] + ([columns.tools] if columns.tools else [])
    for batch, file, first_row in batches(files, (), Kept(chats=tuple(names))):
        chats = chats_in(batch, columns.messages, file, first_row)
        tools: list[str | None] = [None] * len(chats)
        if columns.tools is not None and columns.tools in batch.schema.names:
            tools = tools_in(batch, columns.tools, file, first_row)
        for chat, schemas in zip(chats, tools, strict=True):
            yield json.loads(chat), schemas


def _check_room(
    prompts: Sequence[Sequence[int]], model: PreTrainedModel, request: PredictionRequest
) -> None:
    positions = usable_positions(model.config)
    for row, prompt in enumerate(prompts, 1):
        if not prompt:
            raise DataError(f"row {row} has an empty prompt: give it a text, or remove the row")
        if len(prompt) >= positions:
            raise DataError(
                f"the prompt of row {row} has {len(prompt)} tokens, which leaves none of the "
                f"model's {positions} positions for an answer: shorten it"
            )
