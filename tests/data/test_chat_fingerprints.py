"""Fingerprints of blocks of chats: those of the first rules, unless other sequences are made."""

import hashlib
import json

import numpy as np
import pytest
from data_rows import write
from lm_data import CHATML, MARKED, chat_rows, completion_rows, save_causal_tokenizer, text_rows
from stock_templates import TOOL, assistant, stock_tokenizer, user

from distill.config import Data
from distill.data.blocks import RULES, Blocks, build_blocks
from distill.data.chat_template import ChatTemplate, chat_template_of
from distill.data.chat_tokens import ChatTokens
from distill.data.content import DocumentContent
from distill.data.corpus import build_corpus
from distill.models.tokenizer import fingerprint_of, load_fast_tokenizer
from distill.run_folder import identity

LENGTH = 256
COLUMNS = {
    "text": {},
    "prompt": {"prompt": "prompt", "completion": "completion"},
    "messages": {"messages": "messages"},
}


def first_fingerprint(corpus, tokenizer, cut="head", is_packing=True, arguments=None):
    """What the first version named blocks, and their folder, with; it knew no arguments."""
    parts = [1, corpus.fingerprint, fingerprint_of(tokenizer), tokenizer.eos_token_id]
    parts += [LENGTH, is_packing]
    if corpus.kind != "text":
        parts.append(cut)
    if corpus.kind == "messages":
        named = {name: str(token) for name, token in tokenizer.special_tokens_map.items()}
        parts += [tokenizer.get_chat_template(), named, *([arguments] if arguments else [])]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


@pytest.fixture
def corpus_of(tmp_path, data):
    def make(rows):
        path = write(rows, tmp_path / "rows.jsonl")
        columns = COLUMNS[next(iter(rows[0]))]
        return build_corpus(data(path, columns=columns), content=DocumentContent)

    return make


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "tokenizer"


def with_chat(chat):
    rows = chat_rows(12)
    rows[6]["messages"] = chat
    return rows


@pytest.mark.parametrize("make", [text_rows, completion_rows])
def test_texts_and_completions_keep_their_folder(make, corpus_of, folder):
    save_causal_tokenizer(folder, template=CHATML)
    corpus = corpus_of(make())
    blocks = build_blocks(corpus, folder, LENGTH)
    first = first_fingerprint(corpus, load_fast_tokenizer(folder))
    assert blocks.fingerprint == first and blocks.folder.name == first[:32]
    manifest = json.loads((blocks.folder / "manifest.json").read_text())
    assert not {"template", "turn_ends"} & manifest.keys() and blocks.turn_ends == ()


RIGHT = {
    "plain": chat_rows(12),
    "no answer": with_chat([user()]),
    "no calls": with_chat([user(), assistant("a", tool_calls=[])]),
    "weight 1": with_chat([user(), assistant("a", weight=1)]),
    # Where it would matter is cut off.
    "behind the length": with_chat([user("word " * LENGTH), assistant("a"), *TOOL]),
}


@pytest.mark.parametrize("template", [CHATML, MARKED], ids=["prefixes", "marks"])
@pytest.mark.parametrize("name", RIGHT)
def test_chats_that_were_right_keep_their_fingerprint(name, template, corpus_of, folder):
    shown = (
        template.replace(
            "{% endfor %}{% if add",
            "{{ message.tool_calls | tojson if message.tool_calls }}{% endfor %}{% if add",
        )
        if name == "behind the length"
        else template
    )
    save_causal_tokenizer(folder, template=shown)
    corpus = corpus_of(RIGHT[name])
    blocks = build_blocks(corpus, folder, LENGTH, max_unlearnable=1.0)
    first = first_fingerprint(corpus, load_fast_tokenizer(folder))
    assert blocks.fingerprint == first
    assert blocks.folder.name != first[:32]  # what older rules cut is not opened


def wrong(name):
    """Rows and the tokenizer under which the first rules learnt something else of them."""
    if name == "a call":
        return with_chat(TOOL[:2]), stock_tokenizer("qwen2_5")
    if name == "weight 0":
        return with_chat([user(), assistant("a", weight=0), user(), assistant("b")]), None
    if name == "an empty block":
        return chat_rows(12), stock_tokenizer("qwen3")
    if name == "end of turn":
        return chat_rows(12), stock_tokenizer("qwen2_5", eos="<|endoftext|>")
    assert name == "no calls"  # which the template takes for calls
    return with_chat([user(), assistant("a", tool_calls=[])]), stock_tokenizer("deepseekv3")


@pytest.mark.parametrize(
    "name", ["a call", "weight 0", "an empty block", "end of turn", "no calls"]
)
def test_chats_that_were_wrong_have_another_fingerprint(name, corpus_of, folder):
    rows, tokenizer = wrong(name)
    if tokenizer is None:
        save_causal_tokenizer(folder, template=CHATML)
    else:
        tokenizer.save_pretrained(folder)
    corpus = corpus_of(rows)
    blocks = build_blocks(corpus, folder, LENGTH, max_unlearnable=1.0)
    assert blocks.fingerprint != first_fingerprint(corpus, load_fast_tokenizer(folder))
    again = Blocks(corpus, blocks.folder, folder)
    assert again.fingerprint == blocks.fingerprint and RULES == 2


def test_blocks_of_older_rules_are_not_opened(corpus_of, folder):
    stock_tokenizer("qwen3").save_pretrained(folder)
    corpus = corpus_of(chat_rows(12))
    first = first_fingerprint(corpus, load_fast_tokenizer(folder))
    older = corpus.folder / "blocks" / first[:32]
    older.mkdir(parents=True)
    (older / "manifest.json").write_text("{}")  # as far as it goes
    blocks = build_blocks(corpus, folder, LENGTH, max_unlearnable=1.0)
    assert blocks.folder != older and blocks.num_rows > 0


def test_a_template_counts_by_its_content(corpus_of, folder, tmp_path):
    save_causal_tokenizer(folder, template=MARKED)
    corpus = corpus_of(chat_rows(12))
    config = {"path": "rows.jsonl", "columns": COLUMNS["messages"]}
    found = []
    for name in ("one.jinja", "other.jinja"):
        (tmp_path / name).write_text(CHATML)
        settings = config | {"chat_template": str(tmp_path / name)}
        template = chat_template_of(Data.model_validate(settings))
        found.append(build_blocks(corpus, folder, LENGTH, template=template))
    own = save_causal_tokenizer(tmp_path / "own", template=CHATML)
    found.append(build_blocks(corpus, own, LENGTH))
    assert len({blocks.fingerprint for blocks in found}) == 1
    assert build_blocks(corpus, folder, LENGTH).fingerprint != found[0].fingerprint
    # Prompts are rendered by it too, in whatever process.
    prompts = [b.prompts_of("test", 2) for b in found]
    assert prompts[0] == prompts[2]
    thinking = ChatTemplate(CHATML, json.dumps({"enable_thinking": False}))
    assert build_blocks(corpus, folder, LENGTH, template=thinking).fingerprint != (
        found[0].fingerprint
    )


def test_a_template_that_writes_the_date(corpus_of, folder):
    """Blocks that are written again on another day are not those that teachers answered about."""
    tokenizer = stock_tokenizer("llama3_2")
    tokenizer.save_pretrained(folder)
    corpus = corpus_of(chat_rows(12))
    first = first_fingerprint(corpus, tokenizer)
    dated = build_blocks(corpus, folder, LENGTH)
    assert dated.fingerprint != first
    assert build_blocks(corpus, folder, LENGTH).fingerprint == dated.fingerprint
    fixed = ChatTemplate(arguments=json.dumps({"date_string": "26 Jul 2024"}))
    blocks = build_blocks(corpus, folder, LENGTH, template=fixed)
    assert blocks.fingerprint == first_fingerprint(corpus, tokenizer, arguments=fixed.values)


def test_run_folders_know_the_template_by_the_data():
    from distill.config import Experiment

    def of(**data):
        settings = {
            "task": "language_model",
            "output": "out",
            "data": {"path": "rows.jsonl", "columns": COLUMNS["messages"], **data},
            "teachers": [{"name": "a", "path": "teacher"}],
            "student": {"hidden": 16},
        }
        return identity(Experiment.model_validate(settings), "fingerprint")

    plain = of()
    assert not {"data.chat_template", "data.template_arguments"} & plain.keys()
    assert of(chat_template="t.jinja") == plain
    assert of(template_arguments={"a": 1}) != plain


def test_arguments_reach_the_template(corpus_of, folder):
    tokenizer = stock_tokenizer("qwen3_5_think")
    tokenizer.save_pretrained(folder)
    rows = chat_rows(12)
    corpus = corpus_of(rows)
    given = ChatTemplate(arguments=json.dumps({"preserve_thinking": True}))
    own = (folder / "chat_template.jinja").read_text()
    keeps = ChatTemplate(
        own.replace("loop.index0 > ns.last_query_index", "preserve_thinking is defined"),
        given.arguments,
    )
    dropped, kept = (build_blocks(corpus, folder, 512, template=t) for t in (given, keeps))
    assert kept.template == keeps
    blocks = [np.concatenate(list(b.column("rows", range(b.num_rows)))) for b in (dropped, kept)]
    two_turns = sum(len(row["messages"]) == 5 for row in rows)
    assert len(blocks[0]) == len(rows) + two_turns and len(blocks[1]) == len(rows)


SCHEMA = {"type": "function", "function": {"name": "get", "parameters": {"type": "object"}}}
DATED = "{{ strftime_now('%d %B %Y') }}" + CHATML


def of_two_templates(folder, default, with_tools):
    save_causal_tokenizer(folder)
    tokenizer = load_fast_tokenizer(folder)
    tokenizer.chat_template = {"default": default, "tool_use": with_tools}
    tokenizer.save_pretrained(folder)


def test_a_tokenizer_with_a_template_for_tools(tmp_path, data):
    """Some rows are rendered by one and some by the other: both name the blocks."""
    rows = [row | {"tools": [SCHEMA] if i % 2 else None} for i, row in enumerate(chat_rows(12))]
    columns = {**COLUMNS["messages"], "tools": "tools"}
    path = write(rows, tmp_path / "rows.jsonl")
    corpus = build_corpus(data(path, columns=columns), content=DocumentContent)
    shows = "{{ tools | tojson if tools }}"
    found = {}
    pairs = {"plain": (CHATML, shows + CHATML), "other": (MARKED, shows + CHATML)}
    pairs |= {"marked": (CHATML, shows + MARKED), "dated": (CHATML, shows + DATED)}
    for name, templates in pairs.items():
        of_two_templates(tmp_path / name, *templates)
        found[name] = build_blocks(corpus, tmp_path / name, 2 * LENGTH)
    fingerprints = {blocks.fingerprint for blocks in found.values()}
    assert len(fingerprints) == len({blocks.folder for blocks in found.values()}) == len(pairs)
    payloads = [m["content"] + "<eos>" for m in rows[1]["messages"] if m["role"] == "assistant"]
    for name in ("other", "marked"):
        tokenizer = load_fast_tokenizer(tmp_path / name)
        for tools in (None, [SCHEMA]):
            ((ids, in_loss),) = ChatTokens(tokenizer).of(rows[1]["messages"], 0, tools)
            assert tokenizer.decode(np.array(ids)[in_loss]) == "".join(payloads)
    tokens = ChatTokens(load_fast_tokenizer(tmp_path / "dated"))
    assert tokens.day(has_tools=False) is None and tokens.day(has_tools=True) is not None
