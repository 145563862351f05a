"""Tiny documents of all kinds, and byte-level tokenizers for them."""

from pathlib import Path
from typing import Any

from data_rows import SPLITS, WORDS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

CHATML = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' + message['content'] + "
    "'<eos>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
MARKED = (
    "{% for message in messages %}{{ '<|' + message['role'] + '|>\n' }}"
    "{% if message['role'] == 'assistant' %}{% generation %}{{ message['content'] + '<eos>' }}"
    "{% endgeneration %}{{ '\n' }}{% else %}{{ message['content'] + '<eos>\n' }}{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|assistant|>\n' }}{% endif %}"
)
"""The same rendering, with the assistant's part marked."""


def text(i: int) -> str:
    """Of many lengths; some with characters of several bytes."""
    words = [WORDS[(i + k * k) % len(WORDS)] for k in range(1 + i * 11 % 40)]
    return f"{i} {' '.join(words)}" + " ü🙂日本"[: i % 6]


def text_rows(num_rows: int = 120) -> list[dict[str, Any]]:
    return [{"text": text(i)} | _place(i) for i in range(num_rows)]


def completion_rows(num_rows: int = 60) -> list[dict[str, Any]]:
    return [
        {"prompt": text(i), "completion": f" so {i} is good"} | _place(i) for i in range(num_rows)
    ]


def chat_rows(num_rows: int = 60) -> list[dict[str, Any]]:
    chats = [
        [
            {"role": "system", "content": "a film"},
            {"role": "user", "content": f"{i} was"},
            {"role": "assistant", "content": f"good {i} ü"},
            {"role": "user", "content": "and a song"},
            {"role": "assistant", "content": "very\nboring"},
        ][: 5 if i % 2 else 3]
        for i in range(num_rows)
    ]
    return [{"messages": chat} | _place(i) for i, chat in enumerate(chats)]


def _place(i: int) -> dict[str, str]:
    return {"domain": ("movies", "books", "news")[i // 6 % 3], "split": SPLITS[i % 6]}


def save_causal_tokenizer(
    folder: Path,
    has_bos: bool = False,
    eos: str | None = "<eos>",
    vocab_size: int = 320,
    template: str | None = None,
) -> Path:
    """Byte-level BPE, like those of GPT-2 and its heirs."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<pad>", "<bos>", "<eos>", "<|user|>", "<|assistant|>", "<|system|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([text(i) for i in range(40)], trainer)
    if has_bos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="<bos> $A", special_tokens=[("<bos>", 1)]
        )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<bos>", eos_token=eos
    )
    fast.chat_template = template
    fast.save_pretrained(str(folder))
    return folder
