"""Documents of language models: the same corpus from every format, and every refusal."""

import json

import pytest
from data_rows import make_rows, write
from lm_data import chat_rows, completion_rows, text_rows

from distill.config import SPLITS, Data
from distill.data.build import corpus_key
from distill.data.content import DocumentContent, TextContent
from distill.data.corpus import build_corpus
from distill.errors import DataError
from distill.records import UNLABELLED

KINDS = {
    "text": (text_rows, {}),
    "completion": (completion_rows, {"prompt": "prompt", "completion": "completion"}),
    "messages": (chat_rows, {"messages": "messages"}),
}


def as_csv(rows):
    return [{k: v if isinstance(v, str) else json.dumps(v) for k, v in row.items()} for row in rows]


@pytest.mark.parametrize("kind", KINDS)
def test_every_format_gives_the_same_documents(kind, tmp_path, data):
    make, columns = KINDS[kind]
    rows = make()
    paths = [write(rows, tmp_path / f"rows.{ending}") for ending in ("parquet", "jsonl", "arrow")]
    paths.append(write(as_csv(rows), tmp_path / "rows.csv"))
    found = [build_corpus(data(p, columns=columns), content=DocumentContent) for p in paths]
    assert len({corpus.fingerprint for corpus in found}) == 1
    corpus = found[0]
    assert corpus.kind == kind
    names = list(columns.values()) or ["text"]
    for split in SPLITS:
        expected = [[row[n] for n in names] for row in rows if row["split"] == split]
        documents = list(corpus.documents(split))
        shown = [[json.loads(chat)] for (chat,) in documents] if kind == "messages" else documents
        assert [list(d) for d in shown] == expected
        assert corpus.documents_of(corpus.rows(split)[::-1]) == documents[::-1]
        assert set(corpus.labels_of(corpus.rows(split)).tolist()) <= {UNLABELLED}
    first = next(corpus.texts("test"))  # as a tokenizer is trained on it
    row = next(row for row in rows if row["split"] == "test")
    if kind == "messages":
        assert first == ("\n".join(message["content"] for message in row["messages"]), None)
    else:
        assert first == (row.get("text") or row["prompt"], row.get("completion"))
    domains = [corpus.domain_names[d] for d in corpus.domains_of(corpus.rows("test"))]
    assert domains == [row["domain"] for row in rows if row["split"] == "test"]


def test_labels_are_not_read_and_rows_of_a_classifier_stay_what_they_were(tmp_path, data):
    rows = [{**row, "label": None} for row in make_rows()]
    rows[3]["label"] = "only one"
    config = data(write(rows, tmp_path / "rows.jsonl"))
    documents = build_corpus(config, content=DocumentContent)
    assert documents.label_names == ()
    labelled = build_corpus(data(write(make_rows(), tmp_path / "labelled.jsonl")))
    assert labelled.kind is None and documents.fingerprint != labelled.fingerprint
    # What only language models read names no other corpus of a classifier.
    other = config.model_copy(update={"packing": False, "max_unlearnable": 0.5})
    rows = TextContent(config)
    key = corpus_key([], config, 0, None, rows)
    assert key == corpus_key([], other, 0, None, rows)
    assert key != corpus_key([], config, 0, None, DocumentContent(config))


def test_corpora_of_documents_are_found_where_they_were():
    """A constant: caches of earlier versions fit."""
    config = Data(path="x")
    key = corpus_key([], config, 0, None, DocumentContent(config))
    assert key == "6336e5307c0f717fda037bb1bb67c75e"


def test_an_empty_prompt_or_completion_is_kept(tmp_path, data):
    rows = completion_rows()
    rows[0]["prompt"] = rows[1]["prompt"] = None
    rows[2]["completion"] = ""
    columns = KINDS["completion"][1]
    corpus = build_corpus(
        data(write(rows, tmp_path / "rows.parquet"), columns=columns), content=DocumentContent
    )
    documents = list(corpus.documents("train"))
    assert [documents[0][0], documents[1][0], documents[2][1]] == ["", "", ""]


USER = {"role": "user", "content": "a"}


@pytest.mark.parametrize(
    ("chat", "parts"),
    [
        ([{"role": "robot", "content": "a"}], ["the role of message 1", "'robot'", "assistant"]),
        ([USER, {"role": "assistant"}], ["the content of message 2", "null", "a string"]),
        ([USER, {"content": "a"}], ["message 2", "has no role", "assistant"]),
        ([USER, {"role": "assistant", "content": 3}], ["the content of message 2", "is 3"]),
        ([], ["[]", "at least one message"]),
        ("good film", ["'good film'", "not JSON"]),
        ({"role": "user", "content": "a"}, ["a list of at least one message"]),
        (None, ["is null", "remove the row"]),
        ([USER, {"role": "user", "content": "\ud800"}], ["not UTF-8"]),
    ],
)
def test_chats_that_are_none(chat, parts, tmp_path, data):
    rows = chat_rows()
    rows[4]["messages"] = chat
    config = data(write(rows, tmp_path / "rows.jsonl"), columns={"messages": "messages"})
    with pytest.raises(DataError) as caught:
        build_corpus(config, content=DocumentContent)
    for part in ("data.columns.messages 'messages'", "row 5 of", "rows.jsonl", *parts):
        assert part in str(caught.value)


def test_columns_that_are_not_there_or_of_another_kind(tmp_path, data):
    path = write(completion_rows(), tmp_path / "rows.parquet")

    def refuses(columns, *parts):
        with pytest.raises(DataError) as caught:
            build_corpus(data(path, columns=columns), content=DocumentContent)
        for part in parts:
            assert part in str(caught.value), caught.value

    refuses({"messages": "chat"}, "data.columns.messages 'chat' is not a column", "prompt")
    refuses({"prompt": "prompt", "completion": "end"}, "data.columns.completion 'end'")
    refuses({"text": "prompt", "text_pair": "completion"}, "data.columns.text_pair")
    refuses({"messages": "domain"}, "data.columns.messages names 'domain'", "split")
