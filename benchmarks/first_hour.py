"""The files of README.md's example: reviews with few labels, two classifiers, a scikit-learn model.

    python -m distill.samples.sentiment --out data/sentiment
    python benchmarks/first_hour.py --sample data/sentiment --out first-hour
    cd first-hour && distill train reviews.yaml

writes ``reviews.csv`` (columns body, sentiment, shop; 1,200 of 3,400 rows with a label),
``held-out.csv`` (779 rows), ``models/movies`` and ``models/products`` (two epochs of the sample's
encoder on 450 other rows each), ``tfidf.pkl`` and ``reviews.yaml``. What the commands printed is in
``results/first_hour.txt``.
"""

from __future__ import annotations

import argparse
import pickle
import shutil
import subprocess
from pathlib import Path

import pandas as pd
import yaml

DOMAINS = ("movies", "products")
NAMES = {"text": "body", "label": "sentiment", "domain": "shop"}

EXPERTS = {
    "data": {
        "path": "experts.parquet",
        "columns": {"text": "text", "label": "label", "domain": "domain", "split": "split"},
        "labels": ["negative", "positive"],
        "max_length": 48,
    },
    "experts": {
        "partition": {"type": "column"},
        "train_layers": 2,
        "epochs": 2,
        "optimizer": {"lr": 4e-4, "decay": "linear"},
        "router": None,
        "serving": {"num_cpus": 0.2},
    },
}

REVIEWS = """\
data:
  path: reviews.csv
  columns: {text: body, label: sentiment, domain: shop}
  unlabelled: transfer
  max_length: 48
teachers:
  - {name: movies, path: models/movies, num_cpus: 0.2}
  - {name: products, path: models/products, num_cpus: 0.2}
  - {name: tfidf, path: tfidf.pkl, allow_pickle: true, num_cpus: 0.1}
aggregation: {type: uncertainty}
kd: {temperature: 2.0, alpha: 0.8}
student: {size_mb: 1.5, vocab_size: 4000}
optimizer: {lr: 2.0e-3}
trainer: {epochs: 8, batch_size: 64}
baselines:
  - {type: labels_only, name: student-without-teachers}
  - {type: tfidf}
"""


def sampled(rows: pd.DataFrame, split: str, num: int, first: int = 0) -> pd.DataFrame:
    """Rows ``first`` to ``first + num`` of a fixed order, of each domain."""
    of_split = rows[rows.split == split]
    shuffled = [
        of_split[of_split.domain == domain].sample(frac=1, random_state=1) for domain in DOMAINS
    ]
    return pd.concat([domain[first : first + num] for domain in shuffled])


def write_data(sample: Path, out: Path) -> pd.DataFrame:
    """The data files; returns the rows that the teachers are trained on."""
    rows = pd.read_parquet(sample / "sentiment.parquet")
    train = sampled(rows, "train", 450)
    experts = [train, sampled(rows, "validation", 100), sampled(rows, "test", 100)]
    pd.concat(experts).to_parquet(out / "experts.parquet")
    labelled = sampled(rows, "train", 600, first=450)
    unlabelled = sampled(rows, "transfer", 1100).assign(label=None)
    mine = pd.concat([labelled, unlabelled]).sample(frac=1, random_state=2)
    mine[list(NAMES)].rename(columns=NAMES).to_csv(out / "reviews.csv", index=False)
    held_out = sampled(rows, "test", 400, first=100)
    held_out[list(NAMES)].rename(columns=NAMES).to_csv(out / "held-out.csv", index=False)
    return train


def write_teachers(sample: Path, out: Path, train: pd.DataFrame) -> None:
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline

    pipeline = make_pipeline(TfidfVectorizer(ngram_range=(1, 2)), LogisticRegression(C=10))
    (out / "tfidf.pkl").write_bytes(pickle.dumps(pipeline.fit(train.text, train.label)))
    config = EXPERTS | {
        "experts": EXPERTS["experts"] | {"base": str((sample / "encoder").absolute())}
    }
    (out / "experts.yaml").write_text(yaml.safe_dump(config))
    subprocess.run(["distill", "experts", "experts.yaml"], cwd=out, check=True)
    for name in DOMAINS:
        trained = out / "runs" / "experts" / "experts" / name / "model"
        shutil.copytree(trained, out / "models" / name, dirs_exist_ok=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--sample", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    train = write_data(arguments.sample, arguments.out)
    write_teachers(arguments.sample, arguments.out, train)
    (arguments.out / "reviews.yaml").write_text(REVIEWS)


if __name__ == "__main__":
    main()
