"""A base model's tokenizer with a chat template: texts end where an answer ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from transformers import AutoTokenizer, GenerationConfig

from distill.export.folder import ModelCard, export
from distill.models.tokenizer import load_tokenizer
from distill.training.fit import build_module
from distill.training.job import Job
from tests.sampling.test_fits import batch_texts, sampled_job, steps_of
from tests.toys_language import NUM_TOKENS, SPLITS, llama, write_tokenizer

TURNS = ("<|user|>", "<|assistant|>", "<|end|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m.role + '|> ' + m.content + ' <|end|>\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|> ' }}{% endif %}"
)
GIVEN = TEMPLATE.replace("<|assistant|> ", "<|assistant|> the ")
EOS, END = 0, NUM_TOKENS + 2


def chat_job(root: Path, sampling: dict[str, Any], **data: Any) -> Job:
    """Teachers and student of chats; the end-of-text token ends no turn."""
    for seed, name in enumerate(("films", "meals"), 1):
        if not (root / name).exists():
            llama(seed, NUM_TOKENS + 3).save_pretrained(root / name)
            write_tokenizer(root / name)
            tokenizer: Any = load_tokenizer(root / name)
            tokenizer.add_special_tokens({"additional_special_tokens": list(TURNS)})
            tokenizer.chat_template = TEMPLATE
            tokenizer.save_pretrained(root / name)
    rows = [
        {
            "messages": [
                {"role": "user", "content": "the film"},
                {"role": "assistant", "content": "was good" if i % 3 else "was"},
            ],
            "domain": ("films", "meals")[i % 2],
            "split": SPLITS[(i // 2) % len(SPLITS)],
        }
        for i in range(48)
    ]
    pq.write_table(pa.Table.from_pylist(rows), root / "chats.parquet")
    return sampled_job(
        root,
        "run",
        sampling,
        data={
            "path": str(root / "chats.parquet"),
            "columns": {"messages": "messages", "domain": "domain", "split": "split"},
            "max_length": 32,
            "packing": False,
            "cache_dir": str(root / "data-cache"),
            **data,
        },
    )


@pytest.mark.parametrize(
    "sampling",
    [{"type": "on_policy"}, {"type": "teacher", "teacher": "films", "decoding": {}}],
    ids=["on_policy", "teacher"],
)
def test_what_is_written_ends_with_the_turn(sampling: dict[str, Any], tmp_path: Path) -> None:
    job = chat_job(tmp_path, sampling)
    texts = [text for batch, _ in steps_of(job) for text in batch_texts(batch)[1]]
    assert any(text[-1] == END for text in texts)
    assert not any({EOS, END} & set(text[:-1]) for text in texts)


def test_an_export_generates_to_the_end_of_a_turn(tmp_path: Path) -> None:
    template = tmp_path / "template.jinja"
    template.write_text(GIVEN)
    arguments = {"enable_thinking": False}
    job = chat_job(
        tmp_path,
        {"type": "dataset"},
        chat_template=str(template),
        template_arguments=arguments,
    )
    blocks = job.data.open()
    targets = blocks.padded([0])
    in_loss = targets.input_ids_BT[0, 1:][targets.targets_BT[0, :-1]].tolist()
    assert in_loss[-1] == END and EOS not in in_loss
    student = build_module(job).student
    assert student.generation_config.eos_token_id == EOS
    export(student, job.data.tokenizer, tmp_path / "out", ModelCard("tiny"), chat=job.data.chat)
    assert student.generation_config.eos_token_id == EOS  # as it was in training
    exported = GenerationConfig.from_pretrained(tmp_path / "out")
    assert exported.eos_token_id == [EOS, END]
    assert AutoTokenizer.from_pretrained(tmp_path / "out").chat_template == GIVEN
    card = (tmp_path / "out/README.md").read_text()
    assert "**{'enable_thinking': False}" in card
    code = card.split("```python\n")[1].split("```")[0]
    exec(code.replace("path/to/this/folder", str(tmp_path / "out")), {})


def test_an_export_of_texts_is_as_it_was(tmp_path: Path) -> None:
    job = chat_job(tmp_path, {"type": "dataset"})
    student = build_module(job).student
    export(student, job.data.tokenizer, tmp_path / "out", ModelCard("tiny"))
    assert GenerationConfig.from_pretrained(tmp_path / "out").eos_token_id == EOS
