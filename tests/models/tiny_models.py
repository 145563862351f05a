"""Tiny real models on disk."""

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    BertConfig,
    BertTokenizer,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

WORDS = ["the", "a", "good", "bad", "film", "was", "is", "not", "very", "plot", *"xyzwvutsrqponm"]
LABELS = ("neg", "neutral", "pos")


def save_tokenizer(folder: Path) -> int:
    """A WordPiece tokenizer of whole words; its size."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]
    tokenizer = BertTokenizer(vocab={token: index for index, token in enumerate(tokens)})
    tokenizer.save_pretrained(folder)
    return len(tokens)


def tiny_config(vocab_size: int = 5 + len(WORDS), **changes: object) -> BertConfig:
    return BertConfig(
        **{
            "vocab_size": vocab_size,
            "hidden_size": 16,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "intermediate_size": 32,
            "max_position_embeddings": 24,
            "id2label": dict(enumerate(LABELS)),
            "label2id": {name: index for index, name in enumerate(LABELS)},
            **changes,
        }
    )


def save_language_tokenizer(folder: Path, extra: tuple[str, ...] = (), **special: str) -> int:
    """A tokenizer of whole words with an end of text that also pads; its size."""
    words = ["<eos>", "<unk>", *WORDS, *extra]
    backend = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, "<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"eos_token": "<eos>", "pad_token": "<eos>", "unk_token": "<unk>", **special}
    PreTrainedTokenizerFast(tokenizer_object=backend, **special).save_pretrained(folder)
    return len(words)


NUM_LANGUAGE_TOKENS = 2 + len(WORDS)
_SIZE = {
    "vocab_size": NUM_LANGUAGE_TOKENS,
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "intermediate_size": 24,
    "max_position_embeddings": 32,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "pad_token_id": None,
    "initializer_range": 0.5,  # logits that differ
}
_TYPES = ["sliding_attention", "full_attention", "full_attention", "sliding_attention"]
_MOE = {"num_experts": 3, "num_experts_per_tok": 2}


def decoder_config(family: str = "llama", **changes: object) -> PretrainedConfig:
    """Four layers that differ where a family's layers can."""
    own: dict[str, dict[str, object]] = {
        "llama": {"tie_word_embeddings": True},
        "qwen2": {"use_sliding_window": True, "sliding_window": 4, "layer_types": _TYPES},
        "qwen3": {"head_dim": 8},
        "mistral": {"sliding_window": 4},
        "mixtral": {"num_local_experts": 3},
        "olmoe": _MOE,
        "qwen3_moe": {**_MOE, "moe_intermediate_size": 8, "mlp_only_layers": [0, 2]},
        "smollm3": {"no_rope_layers": [1, 0, 1, 1]},
        "gpt2": {"n_inner": 24},
        "gemma": {"head_dim": 8},
        "gemma2": {"head_dim": 8, "sliding_window": 4, "layer_types": _TYPES},
        "cohere": {},
    }
    size = {k: v for k, v in _SIZE.items() if family != "gpt2" or k in GPT2_KEYS}
    return AutoConfig.for_model(family, **{**size, **own[family], **changes})


GPT2_KEYS = ("vocab_size", "hidden_size", "num_hidden_layers", "num_attention_heads")
GPT2_KEYS += ("max_position_embeddings", "bos_token_id", "eos_token_id", "initializer_range")


def decoder(family: str = "llama", seed: int = 3, **changes: object) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(decoder_config(family, **changes)).eval()


def save_decoder(folder: Path, family: str = "llama", **changes: object) -> Any:
    model = decoder(family, **changes)
    model.save_pretrained(folder)
    save_language_tokenizer(folder)
    return model
