"""Which tokens of a document are learnt, and that none is lost where a text is split."""

import numpy as np
import pytest
from lm_data import CHATML, MARKED, chat_rows, save_causal_tokenizer, text

from distill.data.sequences import Sequencer
from distill.errors import ConfigError, DataError, ModelError
from distill.models.tokenizer import load_fast_tokenizer

CAMEL = "🐫"  # which the tokenizers have not seen: 3 tokens
LONG = f"good 🙂film {CAMEL}was日本 {CAMEL * 2} very " * 30


@pytest.fixture(scope="module")
def tokenizers(tmp_path_factory):
    """With and without what is put in front and behind."""
    folder = tmp_path_factory.mktemp("causal")
    return {
        (has_bos, eos): load_fast_tokenizer(
            save_causal_tokenizer(folder / f"{has_bos}{eos}", has_bos, eos, template=CHATML)
        )
        for has_bos in (False, True)
        for eos in ("<eos>", None)
    }


@pytest.fixture(params=[(False, "<eos>"), (True, "<eos>"), (True, None), (False, None)])
def tokenizer(request, tokenizers):
    return tokenizers[request.param]


@pytest.mark.parametrize("max_length", [10, 13, 64, 4096])
def test_every_token_of_a_text_is_learnt_once_however_it_is_split(tokenizer, max_length):
    texts = [LONG, CAMEL * 20, *(text(i) for i in range(30))]
    found = Sequencer(tokenizer, "text", max_length).of([(t,) for t in texts], 0)
    for written, (sequences, _) in zip(texts, found, strict=True):
        whole = tokenizer(written)["input_ids"]  # with <bos>, where it is added
        whole += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        in_loss = np.concatenate([s.ids[1:][s.targets[:-1]] for s in sequences])
        assert in_loss.tolist() == whole[1:]
        assert max(len(s.ids) for s in sequences) <= max_length
        ends = [s.is_end for s in sequences]
        assert ends == [False] * (len(ends) - 1) + [True]


def test_the_text_of_a_split_sequence_is_that_of_its_tokens(tokenizer):
    (found,) = Sequencer(tokenizer, "text", 11).of([(LONG,)], 0)
    assert len(found.sequences) > 10
    covered = 0
    for s in found.sequences:
        shown = tokenizer.decode(s.ids, skip_special_tokens=True)
        assert shown == LONG[s.start : s.stop] and "\ufffd" not in shown
        assert s.start <= covered <= s.stop
        covered = s.stop
    assert covered == len(LONG)


def test_a_length_that_cannot_hold_a_character_is_refused(tokenizers):
    with pytest.raises(DataError, match=r"data\.max_length 6 is too short .*'🐫.*raise it"):
        Sequencer(tokenizers[True, "<eos>"], "text", 6).of([(CAMEL * 3,)], 0)


def test_short_sequences(tokenizers):
    one, two = "a", "the"
    bare = Sequencer(tokenizers[False, None], "text", 8)
    assert [len(f.sequences) for f in bare.of([(one,)], 0)] == [0]  # nothing before its one token
    (found,) = Sequencer(tokenizers[False, "<eos>"], "text", 8).of([(one,)], 0)
    assert found.sequences[0].targets.tolist() == [True, False]
    size = len(tokenizers[False, None](two * 9)["input_ids"])
    (exact,) = Sequencer(tokenizers[False, None], "text", size).of([(two * 9,)], 0)
    assert [len(s.ids) for s in exact.sequences] == [size]
    assert exact.sequences[0].targets.sum() == size - 1


def test_only_a_completion_and_its_end_are_learnt(tokenizer):
    documents = [("the film", " was good"), ("", "good"), ("the film", "")]
    found = Sequencer(tokenizer, "completion", 64).of(documents, 0)
    for (prompt, completion), (sequences, is_truncated) in zip(documents, found, strict=True):
        assert not is_truncated
        if not completion:
            assert sequences == []
            continue
        (s,) = sequences
        before = tokenizer(prompt)["input_ids"]
        after = tokenizer(completion, add_special_tokens=False)["input_ids"]
        after += [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
        assert s.ids.tolist() == before + after
        in_loss = after if before else after[1:]  # the first one follows nothing
        assert s.ids[1:][s.targets[:-1]].tolist() == in_loss


def test_a_longer_prompt_or_completion_is_cut_by_the_rule(tokenizers):
    tokenizer = tokenizers[True, "<eos>"]
    prompt, completion = "the film was a song about nothing ", "bad and boring"
    whole = tokenizer(prompt)["input_ids"]
    num_prompt = len(whole)
    whole += tokenizer(completion, add_special_tokens=False)["input_ids"] + [2]
    num_in_loss = len(whole) - num_prompt
    for size in range(4, len(whole)):
        (head,) = Sequencer(tokenizer, "completion", size, "head").of([(prompt, completion)], 0)
        (tail,) = Sequencer(tokenizer, "completion", size, "tail").of([(prompt, completion)], 0)
        assert head.is_truncated and tail.is_truncated
        if size <= num_prompt:
            assert head.sequences == []
        else:
            assert head.sequences[0].ids.tolist() == whole[:size]
            assert head.sequences[0].targets.sum() == size - num_prompt
        (s,) = tail.sequences
        assert s.ids.tolist() == [whole[0], *whole[len(whole) - size + 1 :]]
        # Where the completion itself loses tokens, its first one left has lost its context.
        assert s.targets.sum() == min(num_in_loss, size - 2)
    with pytest.raises(ConfigError, match=r"data\.cut is middle.*use head or tail"):
        Sequencer(tokenizer, "completion", 8, "middle")


@pytest.mark.parametrize("template", [CHATML, MARKED])
def test_only_the_assistants_tokens_of_a_chat_are_learnt(template, tmp_path):
    tokenizer = load_fast_tokenizer(save_causal_tokenizer(tmp_path, template=template))
    sequencer = Sequencer(tokenizer, "messages", 512)
    assert sequencer.chat_tokens is not None
    for row in chat_rows(4):
        chat = row["messages"]
        ((ids, in_loss),) = sequencer.chat_tokens.of(chat, 0)
        assert ids == tokenizer.apply_chat_template(chat)["input_ids"]
        answers = [m["content"] + "<eos>" for m in chat if m["role"] == "assistant"]
        assert tokenizer.decode(np.array(ids)[in_loss]) == "".join(answers)
    cache_only = [*chat[:2], {"role": "assistant", "content": ""}]
    ((ids, in_loss),) = sequencer.chat_tokens.of(cache_only, 0)
    assert not in_loss.any()
    ((_, in_loss),) = sequencer.chat_tokens.of([{"role": "assistant", "content": "good"}], 0)
    assert in_loss.any()


def test_templates_that_do_not_serve(tmp_path):
    chat = chat_rows(2)[1]["messages"]

    def of(template, messages=chat):
        folder = save_causal_tokenizer(tmp_path / "causal", template=template)
        chat_tokens = Sequencer(load_fast_tokenizer(folder), "messages", 512).chat_tokens
        assert chat_tokens is not None
        return chat_tokens.of(messages, 7)

    with pytest.raises(ModelError, match=r"causal has no chat template.*student\.tokenizer"):
        of(None)
    strict = "{{ raise_exception('roles must alternate') }}"
    with pytest.raises(DataError, match=r"refuses document 7.*roles must alternate"):
        of(strict)
