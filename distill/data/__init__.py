"""From data files to batches: source → corpus (rows) → tokens → sampler → batches.

Everything that is kept between runs is Arrow, memory-mapped, and named by a fingerprint of its
content; nothing here holds all texts or all tokens in memory.
"""

from distill.data.batches import Batches
from distill.data.blocks import Blocks, build_blocks
from distill.data.corpus import Corpus, build_corpus
from distill.data.encode import Encoded, PaddedTokens, encode
from distill.data.sampler import Sampler
from distill.data.tokens import Tokens, tokenise
from distill.models.tokenizer import tokenizer_fingerprint

__all__ = [
    "Batches",
    "Blocks",
    "Corpus",
    "Encoded",
    "PaddedTokens",
    "Sampler",
    "Tokens",
    "build_blocks",
    "build_corpus",
    "encode",
    "tokenise",
    "tokenizer_fingerprint",
]
