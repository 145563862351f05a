"""An exported language model needs transformers alone, and its card's example runs."""

import re

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

from distill.config import Lora, Student
from distill.export.folder import ModelCard, export
from distill.models.language import check_language_folder
from distill.models.language_student import build_language_student
from distill.models.tokenizer import load_tokenizer
from tests.models.tiny_models import save_decoder, save_language_tokenizer

IDS = torch.tensor([[2, 9, 4, 7]])
CARD = ModelCard("tiny", teachers=("code", "prose"), objective="forward_kl", temperature=1.0)
TEMPLATE = "{% for m in messages %}{{ m.content }} <eos>{% endfor %}"


@pytest.mark.parametrize("has_chat", [False, True])
def test_the_card_says_how_it_generates(has_chat, tmp_path):
    save_language_tokenizer(tmp_path / "tokenizer")
    if has_chat:
        tokenizer = load_tokenizer(tmp_path / "tokenizer")
        tokenizer.chat_template = TEMPLATE
        tokenizer.save_pretrained(tmp_path / "tokenizer")
    model = build_language_student(Student(hidden=16), tmp_path / "tokenizer", 80, seed=0)
    export(model, tmp_path / "tokenizer", tmp_path / "out", CARD)
    card = (tmp_path / "out/README.md").read_text()
    assert "pipeline_tag: text-generation" in card
    assert "A language model, distilled from 2 teacher(s)" in card
    assert "| Vocabulary | 26 tokens |" in card
    (code,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    assert ("apply_chat_template" in code) is has_chat
    exec(code.replace("path/to/this/folder", str(tmp_path / "out")), {})
    assert AutoTokenizer.from_pretrained(tmp_path / "out").model_max_length == 80


def test_updates_are_merged_and_the_head_is_stored_once(tmp_path):
    whole = save_decoder(tmp_path / "model", pad_token_id=0)
    whole.generation_config.max_new_tokens = 7
    whole.save_pretrained(tmp_path / "model")
    student = Student(path=str(tmp_path / "model"), lora=Lora(rank=2))
    model = build_language_student(student, tmp_path / "model", 16, 0, gradient_checkpointing=True)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_B" in name:
                parameter.fill_(0.05)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    export(model, tmp_path / "model", tmp_path / "out", CARD)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "out")
    torch.testing.assert_close(loaded(IDS).logits, model(IDS).logits, atol=1e-4, rtol=1e-4)
    assert not torch.allclose(loaded(IDS).logits, whole(IDS).logits, atol=1e-2)
    info = check_language_folder(tmp_path / "out")
    assert info.is_tied
    assert info.num_params == whole.num_parameters()
    size = (tmp_path / "out/model.safetensors").stat().st_size
    assert size < 4 * info.num_params + 5000  # the header; the embeddings twice would be 1664 more
    assert GenerationConfig.from_pretrained(tmp_path / "out").max_new_tokens == 7
    assert loaded.generate(IDS, do_sample=False).shape[1] <= 4 + 7
