"""Ways to write a chat, the one that is kept of them, and what is refused."""

import json

import pyarrow as pa
import pytest
from data_rows import write
from lm_data import chat_rows
from pyarrow import parquet
from stock_templates import PLAIN, REPLY, SCHEMA, TOOL, assistant, calls, stock_tokenizer, user

from distill.config import Columns, Data
from distill.data.blocks import build_blocks
from distill.data.build import corpus_key
from distill.data.content import DocumentContent, TextContent
from distill.data.corpus import build_corpus
from distill.errors import ConfigError, DataError

COLUMNS = {"messages": "messages"}
SHAREGPT = [
    {"from": "system", "value": "be kind"},
    {"from": "human", "value": "q1"},
    {"from": "gpt", "value": "a1"},
]


@pytest.fixture
def kept(tmp_path, data):
    """The chat, and tools, that a corpus of one chat in every split keeps."""

    def of(chat, tools=None, ending="jsonl"):
        rows = [row | {"messages": chat} for row in chat_rows(6)]
        columns = COLUMNS
        if tools is not None:
            rows = [row | {"tools": tools} for row in rows]
            columns = COLUMNS | {"tools": "tools"}
        path = write(rows, tmp_path / f"rows.{ending}")
        corpus = build_corpus(data(path, columns=columns), content=DocumentContent)
        document = next(corpus.documents("train"))
        found = json.loads(document[0])
        return found if tools is None else (found, document[1] and json.loads(document[1]))

    return of


def test_forms_of_a_message(kept):
    assert kept(SHAREGPT) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "q1"},
        {"role": "assistant", "content": "a1"},
    ]
    names = ["user", "model", "assistant", "observation", "function", "tool"]
    roles = [m["role"] for m in kept([{"from": name, "value": "a"} for name in names])]
    assert roles == ["user", "assistant", "assistant", "tool", "tool", "tool"]
    parts = [{"type": "text", "text": "a"}, {"type": "text", "text": "1"}]
    assert kept([user(), assistant(parts)])[1] == assistant("a1")
    # OpenAI's: no content, arguments as a string of JSON.
    call = calls(city="Rome", unit="C")["tool_calls"][0]
    text = json.dumps({"unit": "C", "city": "Rome"})
    openai = call | {"function": call["function"] | {"arguments": text}}
    message = {"role": "assistant", "content": None, "tool_calls": [openai]}
    assert kept([user(), message])[1] == assistant("", tool_calls=[call])
    nulls = call | {"function": call["function"] | {"arguments": '{"unit": null}'}}
    found = kept([user(), assistant(tool_calls=[nulls])])[1]["tool_calls"][0]
    assert found["function"]["arguments"] == {"unit": None}  # the caller's, not Parquet's
    none = call | {"function": call["function"] | {"arguments": ""}}
    found = kept([user(), assistant(tool_calls=[none])])[1]["tool_calls"][0]
    assert found["function"]["arguments"] == {}
    assert kept([user(), assistant("a", weight=0.0)])[1]["weight"] == 0
    for name in ("train", "training"):  # axolotl's
        assert kept([user(), assistant("a", **{name: False})])[1]["weight"] == 0
        assert kept([user(), assistant("a", **{name: False}, weight=1)])[1]["weight"] == 0
        assert "weight" not in kept([user(), assistant("a", **{name: True})])[1]


def test_chats_that_are_right_are_kept_as_they_are(kept):
    chat = [*TOOL, user("q2"), assistant("a2", reasoning_content="r2", weight=1)]
    assert kept(chat) == chat


@pytest.mark.parametrize(
    ("message", "parts"),
    [
        ({"from": "bing", "value": "a"}, ["message 2 of", "(from) is 'bing'", "human", "gpt"]),
        ({"from": "function_call", "value": "{}"}, ["function_call", "gpt with tool_calls"]),
        ({"role": "function", "content": "a"}, ["'function'", "rename it to 'tool'"]),
        ({"role": "gpt", "content": "a"}, ["'gpt'", "rename it to 'assistant'"]),
        ({"from": "gpt", "value": 3}, ["content of message 2", "is 3"]),
        (assistant(None), ["content of message 2", "null", "tool_calls"]),
        (assistant([{"type": "image_url", "image_url": "x"}]), ["message 2", "image_url", "text"]),
        (assistant("a", weight=0.5), ["weight of message 2", "0.5", "must be 0"]),
        (assistant("a", weight=True), ["weight of message 2", "true"]),
        (assistant("a", weight="0"), ["weight of message 2", '"0"']),
        (assistant("a", tool_calls="get_weather"), ["tool_calls of message 2", "get_weather"]),
        (assistant("a", tool_calls=["get_weather"]), ["tool_calls of message 2", "function"]),
    ],
)
def test_messages_that_are_refused(message, parts, kept):
    with pytest.raises(DataError) as caught:
        kept([user(), message])
    for part in ("data.columns.messages 'messages' in row 1 of", "rows.jsonl", *parts):
        assert part in str(caught.value)


def test_tools_in_every_form(kept):
    for tools in ([SCHEMA], [json.dumps(SCHEMA)], json.dumps([SCHEMA])):
        for ending in ("jsonl", "parquet"):
            assert kept(PLAIN, tools, ending)[1] == [SCHEMA]
    assert kept(PLAIN, [])[1] is None and kept(PLAIN, "")[1] is None
    for tools, part in ((["get"], "not JSON"), ([3], "[3]"), (json.dumps(SCHEMA), "a list of")):
        with pytest.raises(DataError, match=r"data\.columns\.tools 'tools' in row 1 of") as caught:
            kept(PLAIN, tools)
        assert part in str(caught.value)


def as_structs(rows, path):
    """Parquet as pyarrow and datasets write it: each struct has the fields of all others."""
    parquet.write_table(pa.Table.from_pylist(rows), str(path))
    return path


def test_parquet_and_json_lines_give_the_same_tokens(tmp_path, data):
    tokenizer = stock_tokenizer("qwen3")
    tokenizer.save_pretrained(tmp_path / "tokenizer")
    chats = [
        [user(), assistant(**calls(city="Rome")), REPLY, assistant("It is sunny.")],
        [user(), assistant(**calls(unit="C")), REPLY, assistant("a1", weight=0), user(), PLAIN[3]],
        [user(), assistant("a1", reasoning_content="r1")],
    ]
    other = {"type": "function", "function": {"name": "other", "parameters": {"type": "object"}}}
    rows = [
        row | {"messages": chats[i % 3], "tools": [SCHEMA] if i % 2 else [other, SCHEMA]}
        for i, row in enumerate(chat_rows(24))
    ]
    blocks = []
    for path in (write(rows, tmp_path / "r.jsonl"), as_structs(rows, tmp_path / "r.parquet")):
        columns = COLUMNS | {"tools": "tools"}
        corpus = build_corpus(data(path, columns=columns), content=DocumentContent)
        blocks.append(build_blocks(corpus, tmp_path / "tokenizer", 2048))
    lines, structs = blocks
    assert lines.documents.fingerprint == structs.documents.fingerprint
    assert lines.fingerprint == structs.fingerprint
    first, second = (b.padded(range(b.num_rows)) for b in blocks)
    assert first.input_ids_BT.tolist() == second.input_ids_BT.tolist()
    assert first.targets_BT.tolist() == second.targets_BT.tolist()
    shown = "".join(tokenizer.batch_decode(second.input_ids_BT))
    assert '"arguments": {"city": "Rome"}}' in shown and '"arguments": {"unit": "C"}}' in shown
    assert "null" not in shown


def test_arguments_that_are_maps_are_objects(tmp_path, data):
    function = pa.struct({"name": pa.string(), "arguments": pa.map_(pa.string(), pa.string())})
    call = pa.struct({"function": function})
    message = pa.struct({"role": pa.string(), "content": pa.string(), "tool_calls": pa.list_(call)})
    chat = [user(), assistant(tool_calls=[{"function": {"name": "f", "arguments": {"a": "b"}}}])]
    given = [dict(m) for m in chat]
    given[1] = assistant(tool_calls=[{"function": {"name": "f", "arguments": [("a", "b")]}}])
    rows = chat_rows(6)
    table = pa.table(
        {
            "messages": pa.array([given] * 6, pa.list_(message)),
            **{name: [row[name] for row in rows] for name in ("domain", "split")},
        }
    )
    parquet.write_table(table, str(tmp_path / "rows.parquet"))
    corpus = build_corpus(data(tmp_path / "rows.parquet", columns=COLUMNS), content=DocumentContent)
    assert json.loads(next(corpus.documents("train"))[0]) == chat


def test_keys_of_chats():
    def data(**settings):
        columns = settings.pop("columns", COLUMNS)
        return Data.model_validate({"path": "rows.jsonl", "columns": columns, **settings})

    for columns in ({"tools": "tools"}, {**COLUMNS, "tools": "messages"}):
        with pytest.raises(ValueError, match=r"data\.columns\.tools"):
            Columns.model_validate(columns)
    for key, value in (("chat_template", "t.jinja"), ("template_arguments", {"a": 1})):
        with pytest.raises(ValueError, match=rf"data\.{key} applies only to chats: give data\.col"):
            data(columns={}, **{key: value})
    with pytest.raises(ValueError, match=r"template_arguments\.tools is set by distill itself"):
        data(template_arguments={"tools": []})
    with pytest.raises(ValueError, match=r"must be JSON values"):
        data(template_arguments={"date": float("nan")})
    # They are of the blocks, not of the corpus.
    other = data(chat_template="t.jinja", template_arguments={"enable_thinking": False})
    rows = TextContent(data())
    assert corpus_key([], data(), 0, None, rows) == corpus_key([], other, 0, None, rows)
    tools = data(columns=COLUMNS | {"tools": "tools"})
    assert corpus_key([], data(), 0, None, rows) != corpus_key([], tools, 0, None, rows)


def test_a_template_file_that_cannot_be_read(tmp_path):
    from distill.data.chat_template import chat_template_of

    (tmp_path / "empty.jinja").write_text(" \n")
    (tmp_path / "latin.jinja").write_bytes(b"\xff\xfe")
    for name, part in (
        ("absent.jinja", "No such file"),
        ("empty.jinja", "is empty"),
        ("latin.jinja", "not UTF-8"),
    ):
        settings = {"path": "r.jsonl", "columns": COLUMNS, "chat_template": str(tmp_path / name)}
        with pytest.raises(ConfigError, match=rf"data\.chat_template .*{name}.*{part}"):
            chat_template_of(Data.model_validate(settings))


def test_a_column_of_tools_that_is_not_named_is_told(tmp_path, data):
    path = write([row | {"tools": [SCHEMA]} for row in chat_rows(24)], tmp_path / "rows.jsonl")
    for columns, count in ((COLUMNS, 1), (COLUMNS | {"tools": "tools"}, 0)):
        corpus = build_corpus(data(path, columns=columns), content=DocumentContent)
        assert corpus.counts.get("tools_unread", 0) == count
