"""What is learnt of chats under the templates that models are published with."""

import json

import numpy as np
import pytest
from stock_templates import (
    PLAIN,
    REPLY,
    SCHEMA,
    THOUGHT,
    TOOL,
    assistant,
    calls,
    stock_tokenizer,
    user,
)

from distill.data.chat_template import ChatTemplate
from distill.data.chat_tokens import ChatTokens
from distill.data.sequences import Sequencer
from distill.errors import DataError, ModelError

EOT = "<｜end▁of▁sentence｜>"
QWEN_CALL = '<tool_call>\n{"name": "get_weather", "arguments": {"city": "Rome"}}\n</tool_call>'
XML_CALL = (
    "<tool_call>\n<function=get_weather>\n<parameter=city>\nRome\n</parameter>\n</function>\n"
    "</tool_call>"
)
LLAMA_CALL = '{"name": "get_weather", "parameters": {"city": "Rome"}}'
GLM_CALL = (
    "<tool_call>get_weather\n<arg_key>city</arg_key>\n<arg_value>Rome</arg_value>\n</tool_call>"
)
HARMONY_CALL = (
    ' to=functions.get_weather<|channel|>commentary json<|message|>{"city": "Rome"}<|call|>'
)
DEEPSEEK_CALL = (
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>"
    'get_weather\n```json\n{"city": "Rome"}\n```'
    f"<｜tool▁call▁end｜><｜tool▁calls▁end｜>{EOT}"
)
FINAL = "<|channel|>final<|message|>"
THINKS = "<|channel|>analysis<|message|>"
AGAIN = f"<|end|><|start|>assistant{FINAL}"

# Learnt texts of the sequences of PLAIN, TOOL and THOUGHT.
LEARNT = {
    "qwen2_5": (
        ["a1<|im_end|>a2<|im_end|>"],
        [f"{QWEN_CALL}<|im_end|>It is sunny.<|im_end|>"],
        ["a1<|im_end|>a2<|im_end|>"],
    ),
    "qwen3": (
        ["a1<|im_end|>", "a2<|im_end|>"],
        [f"{QWEN_CALL}<|im_end|>", "It is sunny.<|im_end|>"],
        [f"<think>\nr{i}\n</think>\n\na{i}<|im_end|>" for i in (1, 2)],
    ),
    "qwen3_5_think": (
        ["a1<|im_end|>", "a2<|im_end|>"],
        [f"{XML_CALL}<|im_end|>It is sunny.<|im_end|>"],
        # The prompt opens the block.
        [f"r{i}\n</think>\n\na{i}<|im_end|>" for i in (1, 2)],
    ),
    "llama3_1": (
        ["a1<|eot_id|>a2<|eot_id|>"],
        [f"{LLAMA_CALL}<|eot_id|>It is sunny.<|eot_id|>"],
        ["a1<|eot_id|>a2<|eot_id|>"],
    ),
    "glm4moe": (
        # It ends a turn with the token that begins the next message.
        ["a1<|user|>a2"],
        [f"{GLM_CALL}<|observation|>It is sunny."],
        [f"\n<think>r{i}</think>\na{i}" for i in (1, 2)],
    ),
    "gptoss": (
        [f"{FINAL}a{i}<|return|>" for i in (1, 2)],
        [f"{HARMONY_CALL}{FINAL}It is sunny.<|return|>"],
        [f"{THINKS}r{i}{AGAIN}a{i}<|return|>" for i in (1, 2)],
    ),
    "deepseekv3": (
        [f"a{i}{EOT}" for i in (1, 2)],
        [DEEPSEEK_CALL, f"It is sunny.{EOT}"],
        [f"a{i}{EOT}" for i in (1, 2)],
    ),
    "nemotron_3_nano": (
        ["a1<|im_end|>", "a2<|im_end|>"],
        [f"{XML_CALL}\n<|im_end|>", "It is sunny.<|im_end|>"],
        [f"r{i}\n</think>\na{i}<|im_end|>" for i in (1, 2)],
    ),
}
LEARNT["qwen3_5_nothink"] = LEARNT["qwen3_6"] = LEARNT["qwen3_5_think"]
LEARNT["llama3_2"] = LEARNT["llama3_1"]
LEARNT["nemotron_3_super"] = LEARNT["nemotron_3_nano"]
ENDS = {
    "llama3_1": ["<|eot_id|>"],
    "llama3_2": ["<|eot_id|>"],
    "glm4moe": ["<|user|>", "<|observation|>"],
    "gptoss": ["<|return|>", "<|call|>"],
    "deepseekv3": [EOT],
}


def texts(tokenizer, chat, tools=None, **arguments):
    """What is learnt of each sequence, and what precedes the first of it."""
    template = ChatTemplate(arguments=json.dumps(arguments))
    parts = ChatTokens(tokenizer, template).of(chat, 0, tools)
    in_loss = [tokenizer.decode(np.array(ids)[mask]) for ids, mask in parts]
    before = [tokenizer.decode(ids[: int(np.flatnonzero(mask)[0])]) for ids, mask in parts]
    return in_loss, before


@pytest.mark.parametrize("name", LEARNT)
def test_answers_calls_and_reasoning_are_learnt_with_their_end(name):
    tokenizer = stock_tokenizer(name)
    for chat, expected in zip((PLAIN, TOOL, THOUGHT), LEARNT[name], strict=True):
        assert texts(tokenizer, chat)[0] == expected
    ends = tokenizer.convert_ids_to_tokens(list(ChatTokens(tokenizer).ends))
    assert ends == ENDS.get(name, ["<|im_end|>"])


@pytest.mark.parametrize("name", LEARNT)
def test_a_chat_that_ends_in_a_call(name):
    tokenizer = stock_tokenizer(name)
    (in_loss,), (before,) = texts(tokenizer, TOOL[:2])
    whole = LEARNT[name][1]
    first = whole[0].partition("It is sunny.")[0].removesuffix(FINAL)
    assert in_loss == first.removesuffix("<|observation|>")  # nothing follows
    sequencer = Sequencer(tokenizer, "messages", 4096)
    asked = sequencer.asked((json.dumps(TOOL[:2]),), 0)
    assert asked is not None
    assert tokenizer.decode(asked[0]) == before
    # What it is to write, as what it writes is shown.
    ids = tokenizer(in_loss, add_special_tokens=False)["input_ids"]
    assert asked[1] == tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("name", LEARNT)
def test_a_turn_is_behind_what_asked_for_it(name):
    """The context of a learnt turn is the chat so far with the generation prompt."""
    tokenizer = stock_tokenizer(name)
    _, before = texts(tokenizer, THOUGHT)
    for i, context in zip((1, 3), before, strict=False):
        asked = tokenizer.apply_chat_template(
            THOUGHT[:i], tokenize=False, add_generation_prompt=True
        )
        if name == "deepseekv3":  # whose template knows no reasoning, and asks for it
            asked = asked.removesuffix("<think>\n")
        if name == "qwen3_5_nothink":  # which asks for an answer without reasoning
            asked = asked.removesuffix("\n</think>\n\n")
        assert context == asked


@pytest.mark.parametrize("name", LEARNT)
def test_an_empty_block_of_reasoning_is_context(name):
    tokenizer = stock_tokenizer(name)
    _, (before, *_) = texts(tokenizer, PLAIN[:2])
    has_block = name.startswith(("qwen3", "glm", "nemotron"))
    tail = before[before.rindex("assistant") :] if "assistant" in before else ""
    assert ("</think>" in tail) == has_block
    if not has_block:
        return
    # So is one of the generation prompt's.
    in_loss, (off, *_) = texts(tokenizer, PLAIN[:2], enable_thinking=False)
    assert in_loss[0].strip() == LEARNT[name][0][0].partition("<|user|>")[0].partition("a2")[0]
    prompt = tokenizer.apply_chat_template(
        PLAIN[:1], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    assert off == prompt and prompt.rstrip().endswith("</think>")


def test_an_empty_block_that_the_data_has_is_learnt():
    tokenizer = stock_tokenizer("qwen3")
    chat = [user(), assistant("<think>\n\n</think>\n\na1")]
    assert texts(tokenizer, chat)[0] == ["<think>\n\n</think>\n\na1<|im_end|>"]


@pytest.mark.parametrize("name", LEARNT)
def test_a_message_of_weight_0_is_context(name):
    tokenizer = stock_tokenizer(name)
    chat = [user("q1"), assistant("a1", weight=0), user("q2"), assistant("a2", weight=1)]
    in_loss, (before,) = texts(tokenizer, chat)
    last = LEARNT[name][0][-1]
    assert in_loss == [last[last.index("a2") :] if "a1" in last else last]
    assert "a1" in before


@pytest.mark.parametrize("name", [n for n in LEARNT if n != "deepseekv3"])
def test_tools_are_shown_and_change_nothing_of_what_is_learnt(name):
    tokenizer = stock_tokenizer(name)
    in_loss, (before, *_) = texts(tokenizer, TOOL, [SCHEMA])
    assert in_loss == LEARNT[name][1]
    assert "The weather of a city." in before
    if name.startswith("qwen"):  # in the order in which schemas are written
        assert json.dumps(SCHEMA) in before
        shuffled = json.loads(json.dumps(SCHEMA, sort_keys=True))
        assert texts(tokenizer, TOOL, [shuffled])[1][0] == before


def test_only_the_assistants_part_of_a_prompt_is_compared():
    """The prompt opens a block that the answer lacks; no token or line ends between them."""
    tokenizer = stock_tokenizer("deepseek_r1_distill")  # of which this tokenizer has no token
    in_loss, before = texts(tokenizer, PLAIN)
    assert in_loss == [f"a1{EOT}", f"a2{EOT}"] and before[0].endswith("<｜Assistant｜>")
    # What both begin with is no part of a token.
    tokenizer = stock_tokenizer("deepseekv3")
    tokenizer.chat_template = tokenizer.chat_template.replace("<think>\\n", "<tool_calls>")
    chat = [user(), assistant("<tool_call>a")]
    assert texts(tokenizer, chat)[0] == [f"<tool_call>a{EOT}"]


def test_what_a_template_leaves_out_is_refused():
    with pytest.raises(ModelError, match=r"does not render the tools of document 7: .*data\.col"):
        ChatTokens(stock_tokenizer("deepseekv3")).of(TOOL, 7, [SCHEMA])
    with pytest.raises(ModelError, match=r"leaves out the call of 'get_weather' in message 2 of"):
        ChatTokens(stock_tokenizer("llama3")).of(TOOL, 7)
    two = assistant(tool_calls=[*calls(city="Rome")["tool_calls"]] * 2)
    with pytest.raises(DataError, match=r"refuses document 7 .*single tool-calls"):
        ChatTokens(stock_tokenizer("llama3_1")).of([user(), two], 7)


def test_reasoning_that_an_answer_removes_was_there_when_it_was_given():
    """gpt-oss shows the reasoning before a call until there is a final answer."""
    tokenizer = stock_tokenizer("gptoss")
    chat = [
        user(),
        assistant(thinking="r1", **calls(city="Rome")),
        REPLY,
        assistant("It is sunny."),
    ]
    in_loss, before = texts(tokenizer, chat)
    assert in_loss == [
        f"{THINKS}r1<|end|><|start|>assistant{HARMONY_CALL}",
        f"{FINAL}It is sunny.<|return|>",
    ]
    for i, context in zip((1, 3), before, strict=True):
        assert context == tokenizer.apply_chat_template(
            chat[:i], tokenize=False, add_generation_prompt=True
        )


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("qwen3_training", [f"{QWEN_CALL}<|im_end|>\nIt is sunny.<|im_end|>\n"]),
        ("nemotron_3_nano_training", [f"{XML_CALL}\n<|im_end|>\nIt is sunny.<|im_end|>\n"]),
        ("glm4moe_training", [f"{GLM_CALL}<|observation|>It is sunny.<|user|>"]),
    ],
)
def test_marked_templates(name, expected):
    tokenizer = stock_tokenizer(name)
    assert texts(tokenizer, TOOL)[0] == expected  # an empty block is not learnt here either
    (call,), _ = texts(tokenizer, TOOL[:2])  # a chat of calls alone
    assert call == expected[0].partition("It is sunny.")[0]
    light = [user("q1"), assistant("a1", weight=0), user("q2"), assistant("a2")]
    (in_loss,), _ = texts(tokenizer, light)
    assert in_loss == "a2" + expected[0].partition("It is sunny.")[2]


def test_the_end_of_a_turn_is_what_follows_an_answer():
    # A base model's tokenizer: the end of a text is not the end of a turn.
    tokenizer = stock_tokenizer("qwen2_5", eos="<|endoftext|>")
    assert texts(tokenizer, PLAIN)[0] == ["a1<|im_end|>a2<|im_end|>"]  # no newline
    assert tokenizer.convert_ids_to_tokens(list(ChatTokens(tokenizer).ends)) == ["<|im_end|>"]
    # Behind it the template writes the end of the text, which is not the assistant's.
    phi = stock_tokenizer("phi3")
    (in_loss,), _ = texts(phi, PLAIN[:2])
    assert in_loss.rstrip() == "a1<|end|>"


def test_arguments_are_what_the_template_takes():
    for expression in ("{{ one.arguments }}", "{{ one.arguments.strip() }}"):
        tokenizer = stock_tokenizer("qwen2_5")
        tokenizer.chat_template = (
            "{% for m in messages %}{{ m.role + ' ' + m.content }}"
            "{% for one in m.tool_calls or [] %}{% set one = one.function %}"
            f"{{{{ one.name }}}} {expression}"
            "{% endfor %}<|im_end|>{% endfor %}{% if add_generation_prompt %}assistant {% endif %}"
        )
        assert texts(tokenizer, TOOL[:2])[0] == ['get_weather {"city": "Rome"}<|im_end|>']


def test_without_content_or_calls_nothing_is_learnt():
    tokenizer = stock_tokenizer("qwen2_5")
    for message in (assistant(""), assistant("", tool_calls=[]), assistant("", reasoning="r1")):
        ((_, in_loss),) = ChatTokens(tokenizer).of([user(), message], 0)
        assert not in_loss.any()
    assert texts(stock_tokenizer("qwen3"), [user(), assistant("", reasoning="r1")])[0] == [
        "<think>\nr1\n</think>\n\n<|im_end|>"
    ]


def test_a_first_message_of_the_assistants():
    tokenizer = stock_tokenizer("qwen2_5")
    assert texts(tokenizer, [assistant("hello"), *PLAIN])[0] == [
        "hello<|im_end|>a1<|im_end|>a2<|im_end|>"
    ]
    # Its header is not learnt; the template writes a newline of its own before a call.
    ((ids, in_loss),) = ChatTokens(tokenizer).of([TOOL[1], REPLY, TOOL[3]], 0)
    assert tokenizer.decode(np.array(ids)[in_loss]).startswith(QWEN_CALL)


def test_a_template_that_is_none(tmp_path):
    tokenizer = stock_tokenizer("qwen2_5")
    with pytest.raises(ModelError, match=r"data\.chat_template is not a valid Jinja .*line 1"):
        ChatTokens(tokenizer, ChatTemplate("{% for m in messages %}"))


def test_each_turn_is_cut_by_itself():
    tokenizer = stock_tokenizer("qwen3")
    parts = ChatTokens(tokenizer).of(THOUGHT, 0)
    sizes = [len(ids) for ids, _ in parts]
    document = (json.dumps(THOUGHT),)
    (whole,) = Sequencer(tokenizer, "messages", max(sizes)).of([document], 5)
    assert [len(s.ids) for s in whole.sequences] == sizes
    assert [s.row for s in whole.sequences] == [5, 5] and not whole.is_truncated
    (cut,) = Sequencer(tokenizer, "messages", sizes[0]).of([document], 5)
    assert cut.is_truncated and len(cut.sequences) == 1  # the second turn's prompt fills it
    (tail,) = Sequencer(tokenizer, "messages", sizes[0], "tail").of([document], 5)
    assert tail.is_truncated and len(tail.sequences) == 2
