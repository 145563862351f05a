"""``data.prompt_as_chat``: prompts and completions are the same chats as ``messages`` would be."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from data_rows import write
from lm_data import CHATML, completion_rows, save_causal_tokenizer
from pydantic import ValidationError

from distill.config import Data
from distill.data.blocks import build_blocks
from distill.data.build import corpus_key
from distill.data.content import DocumentContent
from distill.data.corpus import build_corpus
from distill.data.source import find_files
from distill.errors import ModelError

Make = Callable[..., Data]
PROMPT = {"prompt": "prompt", "completion": "completion"}


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_causal_tokenizer(tmp_path_factory.mktemp("chatml"), template=CHATML)


def as_messages(row: dict[str, Any]) -> dict[str, Any]:
    chat = [
        {"role": "user", "content": row["prompt"]},
        {"role": "assistant", "content": row["completion"]},
    ]
    rest = {k: v for k, v in row.items() if k not in PROMPT}
    return rest | {"messages": chat}


@pytest.mark.parametrize("split", ["split", None])
def test_the_blocks_are_those_of_the_same_chats(
    split: str | None, tokenizer: Path, tmp_path: Path, data: Make
) -> None:
    rows = completion_rows()
    plain = write(rows, tmp_path / "prompts.jsonl")
    chats = write([as_messages(row) for row in rows], tmp_path / "chats.parquet")
    one = data(plain, columns=PROMPT | {"split": split}, prompt_as_chat=True)
    other = data(chats, columns={"messages": "messages", "split": split})
    blocks = [
        build_blocks(
            build_corpus(each, content=DocumentContent), tokenizer, 48, max_unlearnable=0.5
        )
        for each in (one, other)
    ]
    first, second = blocks
    assert first.kind == "messages" and first.fingerprint == second.fingerprint
    for name in ("input_ids", "targets", "sizes"):
        columns = [list(b.column(name, range(b.num_rows))) for b in blocks]
        assert all(np.array_equal(a, b) for a, b in zip(*columns, strict=True))
    assert first.prompts_of("test", 5) == second.prompts_of("test", 5)
    assert first.prompts_of("test", 1)[0].reference == " so 5 is good" or split is None


def test_only_the_answer_and_its_end_are_trained_on(
    tokenizer: Path, tmp_path: Path, data: Make
) -> None:
    from distill.models.tokenizer import load_tokenizer

    rows = completion_rows(6)
    plain = write(rows, tmp_path / "prompts.jsonl")
    settings = data(plain, columns=PROMPT, prompt_as_chat=True)
    blocks = build_blocks(build_corpus(settings, content=DocumentContent), tokenizer, 128)
    ids = np.array(next(iter(blocks.column("input_ids", [0]))))
    targets = np.array(next(iter(blocks.column("targets", [0]))), bool)
    in_loss = ids[np.flatnonzero(targets) + 1]
    decode = load_tokenizer(tokenizer).decode
    assert f"<|user|>\n{rows[0]['prompt']}<eos>\n<|assistant|>\n so 0 is good<eos>" in decode(ids)
    answers = {" so 0 is good", " so 1 is good", " so 2 is good"}
    assert set(decode(in_loss).removesuffix("<eos>").split("<eos>")) == answers


def test_the_default_keeps_the_corpus(tmp_path: Path, data: Make) -> None:
    path = write(completion_rows(), tmp_path / "prompts.jsonl")
    files = find_files(str(path))

    def key(**settings: Any) -> str:
        config = data(path, columns=PROMPT, **settings)
        return corpus_key(files, config, 0, None, DocumentContent(config))

    assert key() == key(prompt_as_chat=False) != key(prompt_as_chat=True)
    text = data(path, columns=PROMPT).model_dump()
    assert text["prompt_as_chat"] is False


def test_it_needs_prompts_and_a_template(tmp_path: Path, data: Make) -> None:
    with pytest.raises(ValidationError, match=r"give data\.columns\.prompt and completion"):
        data(tmp_path, prompt_as_chat=True)
    data(tmp_path, columns=PROMPT, prompt_as_chat=True, template_arguments={"a": 1})
    with pytest.raises(ValidationError, match="template_arguments applies only to chats"):
        data(tmp_path, columns=PROMPT, template_arguments={"a": 1})
    path = write(completion_rows(), tmp_path / "prompts.jsonl")
    corpus = build_corpus(data(path, columns=PROMPT, prompt_as_chat=True), content=DocumentContent)
    bare = save_causal_tokenizer(tmp_path / "bare")
    with pytest.raises(ModelError, match=r"data\.prompt_as_chat\) needs"):
        build_blocks(corpus, bare, 48)
