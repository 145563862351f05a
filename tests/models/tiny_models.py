"""Tiny real models on disk."""

from pathlib import Path

from transformers import BertConfig, BertTokenizer

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
