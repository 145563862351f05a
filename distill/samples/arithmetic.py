"""Multi-digit arithmetic with worked steps, and a tokenizer of its characters.

    python -m distill.samples.arithmetic --out data/arithmetic --digits 3

writes ``arithmetic.parquet`` (prompt, completion, domain, split) and ``tokenizer/``, for language
models trained from scratch. Domains are addition, subtraction (never below 0) and multiplication:

    85+47=   5+7+0=12,8+4+1=13;132      digit + digit + carry of each column, from the right
    85-47=   5-7-0=-2,8-4-1=3;38        digit - digit - borrow
    85*47=   85*7=595,85*4=340;3995     the products of the first number with each digit

The larger number comes first. A pair of numbers has one split in all three domains, so that no
example of one split is known from another. Every example is generated: nothing is downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from distill.config import SPLITS, Holdout
from distill.data.splits import split_of
from distill.errors import DataError
from distill.samples import command

DOMAINS = {"addition": "+", "subtraction": "-", "multiplication": "*"}
HOLDOUT = Holdout(transfer=0.2, validation=0.05, test=0.1)
CHARACTERS = "0123456789+-*=,;"
SPECIAL = ("<pad>", "<bos>", "<eos>", "<unk>")


def build(
    out: Path,
    digits: int = 3,
    num_pairs: int = 4000,
    seed: int = 0,
    domains: Sequence[str] = tuple(DOMAINS),
) -> str:
    """Write examples and tokenizer into ``out``; returns the table that is printed.

    ``num_pairs`` different pairs of numbers of 1 to ``digits`` digits, each in every domain. Raises
    DataError where so few digits make no so many pairs.
    """
    out.mkdir(parents=True, exist_ok=True)
    rows = [
        {
            "prompt": f"{first}{DOMAINS[domain]}{second}=",
            "completion": worked(first, second, domain),
            "domain": domain,
            "split": SPLITS[split_of(f"{min(first, second)} {max(first, second)}", HOLDOUT)],
        }
        for first, second in pairs(digits, num_pairs, seed)
        for domain in domains
    ]
    table = pa.Table.from_pylist(rows)
    parquet.write_table(table, out / "arithmetic.parquet")
    save_tokenizer(out / "tokenizer")
    lines = [f"{'domain':<16}" + "".join(f"{split:>12}" for split in SPLITS)]
    for domain in domains:
        found = [row["split"] for row in rows if row["domain"] == domain]
        lines.append(f"{domain:<16}" + "".join(f"{found.count(split):>12}" for split in SPLITS))
    return "\n".join(lines)


def pairs(digits: int, num_pairs: int, seed: int) -> Iterator[tuple[int, int]]:
    """Different pairs, the larger number first; numbers of few digits are as likely as of many."""
    if not 1 <= digits <= 18:  # of an int64
        raise DataError(f"--digits must lie in [1, 18], got {digits}")
    num_possible = 10**digits * (10**digits + 1) // 2
    if not 1 <= num_pairs <= num_possible // 2:
        raise DataError(
            f"--pairs must lie in [1, {num_possible // 2}], half of all pairs of --digits "
            f"{digits}, got {num_pairs}: raise --digits or lower --pairs"
        )
    rng = np.random.default_rng(seed)
    seen: set[tuple[int, int]] = set()
    while len(seen) < num_pairs:
        largest = 10 ** rng.integers(1, digits + 1, size=2)
        small, large = sorted(rng.integers(0, largest).tolist())
        if (large, small) not in seen:
            seen.add((large, small))
            yield large, small


def worked(first: int, second: int, domain: str) -> str:
    """The steps, a semicolon, and the result. ``first`` ≥ ``second`` ≥ 0."""
    if domain == "multiplication":
        steps = [f"{first}*{digit}={first * int(digit)}" for digit in reversed(str(second))]
        return ",".join(steps) + f";{first * second}"
    sign = 1 if domain == "addition" else -1
    steps = []
    carry = 0
    width = len(str(first))
    columns = zip(reversed(str(first)), reversed(f"{second:0{width}}"), strict=True)
    for above, below in columns:
        result = int(above) + sign * (int(below) + carry)
        steps.append(f"{above}{DOMAINS[domain]}{below}{DOMAINS[domain]}{carry}={result}")
        carry = int(result > 9 or result < 0)
    return ",".join(steps) + f";{first + sign * second}"


def save_tokenizer(folder: Path) -> None:
    """One token a character, ``<bos>`` in front; what it does not know is ``<unk>``."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *CHARACTERS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex("[\\s\\S]"), "isolated")
    tokenizer.decoder = decoders.Fuse()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<bos> $A", special_tokens=[("<bos>", vocabulary["<bos>"])]
    )
    PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<pad>",
        bos_token="<bos>",
        eos_token="<eos>",
        unk_token="<unk>",
        clean_up_tokenization_spaces=False,
        model_input_names=["input_ids", "attention_mask"],
    ).save_pretrained(str(folder))


def main(arguments: list[str] | None = None) -> int:
    parser = command.parser("arithmetic", __doc__)
    parser.add_argument("--digits", type=int, default=3, help="of the longest numbers")
    parser.add_argument("--pairs", type=int, default=4000, help="of numbers, each in every domain")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--domains", nargs="+", choices=DOMAINS, default=list(DOMAINS))
    parsed = parser.parse_args(arguments)
    out = parsed.out
    return command.run(
        lambda: build(out, parsed.digits, parsed.pairs, parsed.seed, parsed.domains),
        out / "arithmetic.parquet",
        out / "tokenizer",
    )


if __name__ == "__main__":
    sys.exit(main())
