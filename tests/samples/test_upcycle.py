import pytest
import torch

from distill.models.language import check_language_folder, load_language_model
from distill.samples.upcycle import upcycled
from tests.models.tiny_models import decoder, save_language_tokenizer

IDS = torch.arange(2, 22).unsqueeze(0)


@pytest.mark.parametrize("is_tied", [True, False])
def test_equal_experts_are_the_dense_model(is_tied, tmp_path):
    dense = decoder(tie_word_embeddings=is_tied)
    mixture = upcycled(dense, num_experts=4)
    torch.testing.assert_close(mixture(IDS).logits, dense(IDS).logits, atol=1e-4, rtol=1e-4)
    asked = mixture(IDS, output_router_logits=True).router_logits[0].topk(2).indices
    assert len(asked.unique()) == 4  # every expert has tokens to learn from
    mixture.save_pretrained(tmp_path)
    save_language_tokenizer(tmp_path)
    info = check_language_folder(tmp_path)
    assert info.is_tied is is_tied
    ffn = sum(p.numel() for name, p in dense.named_parameters() if ".mlp." in name)
    routers = 4 * 4 * 16  # layers, experts, hidden
    assert info.num_params == dense.num_parameters() + 3 * ffn + routers
    assert torch.equal(load_language_model(tmp_path)(IDS).logits, mixture(IDS).logits)
