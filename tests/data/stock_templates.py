"""The chat templates that models are published with, as trl ships them, on a tiny tokenizer."""

from functools import cache
from pathlib import Path
from typing import Any

import trl
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

FOLDER = Path(trl.__file__).parent / "chat_templates"
SPECIAL = {
    "chatml": ["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    "llama": [
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<|eom_id|>",
    ],
    "glm": ["<|endoftext|>", "[gMASK]", "<sop>", "<|user|>", "<|assistant|>", "<|observation|>"],
    "gptoss": [
        "<|endoftext|>",
        "<|return|>",
        "<|call|>",
        "<|start|>",
        "<|end|>",
        "<|channel|>",
        "<|message|>",
    ],
    "deepseek": [
        "<｜begin▁of▁sentence｜>",
        "<｜end▁of▁sentence｜>",
        "<｜User｜>",
        "<｜Assistant｜>",
    ],
    "phi": ["<|endoftext|>", "<|user|>", "<|assistant|>", "<|end|>"],
}
"""Of each family; the first is the beginning of a text."""
ADDED = ["<think>", "</think>", "<tool_call>", "</tool_call>"]  # added tokens that are not special
EOS = {
    "chatml": "<|im_end|>",
    "llama": "<|eot_id|>",
    "glm": "<|endoftext|>",
    "gptoss": "<|return|>",
    "deepseek": "<｜end▁of▁sentence｜>",
    "phi": "<|endoftext|>",
}
FAMILIES = {
    "llama3": "llama",
    "llama3_1": "llama",
    "llama3_2": "llama",
    "glm4moe": "glm",
    "glm4moe_training": "glm",
    "gptoss": "gptoss",
    "gptoss_training": "gptoss",
    "deepseekv3": "deepseek",
    "phi3": "phi",
}
"""Others speak ChatML."""


def stock_tokenizer(name: str, eos: str | None = None) -> Any:
    """A byte-level tokenizer with the family's special tokens and the template ``name``.

    ``eos``: instead of the family's end-of-text token.
    """
    family = FAMILIES.get(name, "chatml")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(_backend(family)),
        pad_token="<pad>",
        bos_token=SPECIAL[family][0],
        eos_token=eos or EOS[family],
    )
    tokenizer.chat_template = (FOLDER / f"{name}.jinja").read_text(encoding="utf-8")
    return tokenizer


@cache
def _backend(family: str) -> str:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<pad>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(["It is sunny in Rome"], trainer)
    tokenizer.add_special_tokens(SPECIAL[family])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in ADDED])
    return tokenizer.to_str()


def user(content: str = "q1") -> dict[str, Any]:
    return {"role": "user", "content": content}


def assistant(content: str | None = "", **fields: Any) -> dict[str, Any]:
    return {"role": "assistant", "content": content, **fields}


def calls(**arguments: Any) -> dict[str, Any]:
    """The field of a message that calls get_weather."""
    function = {"name": "get_weather", "arguments": arguments}
    return {"tool_calls": [{"id": "abcdefghi", "type": "function", "function": function}]}


REPLY = {"role": "tool", "name": "get_weather", "content": "sunny", "tool_call_id": "abcdefghi"}
PLAIN = [user("q1"), assistant("a1"), user("q2"), assistant("a2")]
TOOL = [user(), assistant(**calls(city="Rome")), REPLY, assistant("It is sunny.")]
THOUGHT = [
    user("q1"),
    assistant("a1", reasoning_content="r1"),
    user("q2"),
    assistant("a2", reasoning_content="r2"),
]
SCHEMA = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
