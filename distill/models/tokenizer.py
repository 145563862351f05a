"""Tokenizers: loading one from a folder, and retraining one to a small vocabulary."""

from __future__ import annotations

import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from distill.errors import ConfigError, ModelError
from distill.models.hub import not_found
from distill.models.weights import brief

log = logging.getLogger(__name__)

_TOKENIZER_FILES = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "spiece.model",
    "sentencepiece.bpe.model",
    "tokenizer.model",
)
MAX_CHARACTERS = 1000
"""Characters that get a token of their own in a WordPiece vocabulary, the most frequent ones."""


def load_tokenizer(folder: str | Path) -> PreTrainedTokenizerBase:
    """The folder's tokenizer; ModelError when its files are missing or unreadable."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ModelError(not_found("tokenizer folder", folder))
    # Without any file transformers builds an empty tokenizer that maps every word to [UNK].
    if not any((folder / name).is_file() for name in _TOKENIZER_FILES):
        raise ModelError(
            f"{folder} has no tokenizer files (none of {', '.join(_TOKENIZER_FILES)}): save the "
            "model's tokenizer there with tokenizer.save_pretrained"
        )
    try:
        with quiet():
            return AutoTokenizer.from_pretrained(
                folder, local_files_only=True, trust_remote_code=False
            )
    except Exception as error:  # the tokenizers library raises plain Exceptions
        raise ModelError(f"{folder}: the tokenizer cannot be read: {brief(error)}") from None


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """Rows that embeddings need: len(tokenizer), or more where ids are left out."""
    return max(len(tokenizer), 1 + max(tokenizer.get_vocab().values(), default=-1))


def pad_id(tokenizer: Any) -> int:
    """What fills rows behind their end: the padding token, or any other where there is none.

    It is never read: masks, and the causal order of a language model's tokens, keep it out.
    """
    for token_id in (tokenizer.pad_token_id, tokenizer.eos_token_id):
        if token_id is not None:
            return token_id
    return 0


def retrain(
    tokenizer: PreTrainedTokenizerBase, texts: Callable[[], Iterator[str]], vocab_size: int
) -> PreTrainedTokenizerBase:
    """The same kind of tokenizer with at most ``vocab_size`` tokens, trained on ``texts``.

    Few texts can give fewer tokens, which is logged. The same texts in the same order always give
    the same tokens. Raises ConfigError for kinds of which that is not so, and for a ``vocab_size``
    below the number of characters and special tokens.
    """
    kind = _kind(tokenizer)
    if kind == "WordPiece":
        retrained = _retrain_wordpiece(tokenizer, texts, vocab_size)
    elif kind == "BPE":
        retrained = _train(tokenizer, texts(), vocab_size)
    else:
        raise ConfigError(
            f"student.vocab_size {vocab_size}: a {kind} tokenizer cannot be retrained "
            "reproducibly: set student.tokenizer to a WordPiece or BPE one with a tokenizer.json"
        )
    if len(retrained) > vocab_size:
        # Its characters (or the 256 bytes) and special tokens are there whatever was asked.
        raise ConfigError(
            f"student.vocab_size {vocab_size} is below the {len(retrained)} characters and special "
            "tokens that this tokenizer needs: raise it"
        )
    if len(retrained) < vocab_size:
        log.warning(
            "the texts give a tokenizer of %d tokens, not the %d of student.vocab_size",
            len(retrained),
            vocab_size,
        )
    return retrained


def is_retrainable(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether :func:`retrain` takes a tokenizer of this kind."""
    return _kind(tokenizer) in ("WordPiece", "BPE")


def _kind(tokenizer: Any) -> str:
    if not tokenizer.is_fast:
        return "slow"
    model = json.loads(tokenizer.backend_tokenizer.to_str())["model"]
    # An affix makes tokens in the order of a randomly seeded hash map, as in WordPiece.
    if model.get("end_of_word_suffix") or (
        model["type"] == "BPE" and model.get("continuing_subword_prefix")
    ):
        return "BPE with affixes"
    return model["type"]


def _retrain_wordpiece(
    tokenizer: Any, texts: Callable[[], Iterator[str]], vocab_size: int
) -> PreTrainedTokenizerBase:
    """Reproducibly, which the library's own trainer is not.

    That numbers the ``##c`` tokens in the order of a randomly seeded hash map and breaks ties by
    number, so every process learns another vocabulary. Here they are numbered beforehand, in
    order: by naming them special tokens, of which only the trained model is kept.
    """
    backend = tokenizer.backend_tokenizer
    prefix = json.loads(backend.to_str())["model"]["continuing_subword_prefix"]
    words: Counter[str] = Counter()
    for text in texts():
        if backend.normalizer is not None:
            text = backend.normalizer.normalize_str(text)
        words.update(word for word, _ in backend.pre_tokenizer.pre_tokenize_str(text))
    counts: Counter[str] = Counter()
    for word, count in words.items():
        for character in word:
            counts[character] += count
    alphabet = sorted(sorted(counts), key=lambda c: -counts[c])[:MAX_CHARACTERS]
    continuing = sorted({c for word in words for c in word[1:]} & set(alphabet))
    trained: Any = _train(
        tokenizer,
        texts(),
        vocab_size,
        new_special_tokens=[prefix + character for character in continuing],
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
    )
    clean: Any = _train(tokenizer, iter(()), vocab_size)  # the special tokens, and nothing else
    clean.backend_tokenizer.model = trained.backend_tokenizer.model
    return clean


def _train(
    tokenizer: Any, texts: Iterator[str], vocab_size: int, **options: Any
) -> PreTrainedTokenizerBase:
    batches = iter(lambda: list(islice(texts, 1000)), [])
    return tokenizer.train_new_from_iterator(batches, vocab_size, show_progress=False, **options)


@contextmanager
def quiet() -> Iterator[None]:
    """Without transformers' reports: what they would say is an error or expected here."""
    verbosity = transformers_logging.get_verbosity()
    had_bars = transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(verbosity)
        if had_bars:
            transformers_logging.enable_progress_bar()


def load_fast_tokenizer(folder: str | Path) -> Any:
    """The fast tokenizer of a local folder; ModelError without one."""
    tokenizer: Any = load_tokenizer(folder)
    if not tokenizer.is_fast:
        raise ModelError(
            f"the tokenizer in {folder} has no fast version (tokenizer.json): convert it with "
            "transformers and save it again"
        )
    tokenizer.truncation_side = "right"
    return tokenizer


def tokenizer_fingerprint(folder: str | Path) -> str:
    """sha256 of what the tokenizer does, not of its files: equal ones give the same tokens."""
    return fingerprint_of(load_fast_tokenizer(folder))


def fingerprint_of(tokenizer: Any) -> str:
    backend = json.loads(tokenizer.backend_tokenizer.to_str())
    # Saved defaults that every call here overrides.
    backend.update(truncation=None, padding=None)
    behaviour = [backend, pad_id(tokenizer), "token_type_ids" in tokenizer.model_input_names]
    return hashlib.sha256(json.dumps(behaviour, sort_keys=True).encode()).hexdigest()
