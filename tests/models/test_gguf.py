"""GGUF files, written here by gguf itself, without quantisation."""

import pytest
import torch
from tiny_models import decoder

from distill.errors import ModelError
from distill.models.gguf import convert, main
from distill.models.tokenizer import load_tokenizer

gguf = pytest.importorskip("gguf")
pytest.importorskip("accelerate")

TOKENS = ["<|endoftext|>", *"abcdefghijklmnopqrstuvw", "ab", "abc"]
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def interleaved(weight, num_heads):
    """GGUF's order of the rows of a head, whose halves turn together."""
    halves = weight.reshape(num_heads, 2, -1, weight.shape[1])
    return halves.transpose(1, 2).reshape(weight.shape)


def write_gguf(path, model):
    config = model.config
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters["rope_theta"])
    writer.add_vocab_size(len(TOKENS))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(TOKENS)
    writer.add_token_merges(["a b", "ab c"])
    writer.add_token_types([3] + [1] * (len(TOKENS) - 1))
    writer.add_bos_token_id(0)
    writer.add_eos_token_id(0)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    state = model.state_dict()
    writer.add_tensor("token_embd.weight", state["model.embed_tokens.weight"].numpy())
    writer.add_tensor("output_norm.weight", state["model.norm.weight"].numpy())
    for index in range(config.num_hidden_layers):
        for name, theirs in NAMES.items():
            weight = state[f"model.layers.{index}.{name}.weight"]
            if theirs == "attn_q":
                weight = interleaved(weight, config.num_attention_heads)
            if theirs == "attn_k":
                weight = interleaved(weight, config.num_key_value_heads)
            writer.add_tensor(f"blk.{index}.{theirs}.weight", weight.contiguous().numpy())
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_a_file_becomes_a_folder_with_the_same_logits(tmp_path):
    from distill.models.language import load_language_model

    model = decoder(num_key_value_heads=2)
    write_gguf(tmp_path / "tiny.gguf", model)
    info = convert(tmp_path / "tiny.gguf", tmp_path / "out")
    assert info.is_tied
    assert info.num_params == model.num_parameters()
    ids = torch.arange(1, 20).unsqueeze(0)
    again = load_language_model(tmp_path / "out")
    torch.testing.assert_close(again(ids).logits, model(ids).logits, atol=1e-5, rtol=1e-5)
    tokenizer = load_tokenizer(tmp_path / "out")
    assert tokenizer("abcd")["input_ids"] == [TOKENS.index("abc"), TOKENS.index("d")]


@pytest.mark.parametrize("share", [0.001, 0.3, 0.7, 0.99])
def test_a_file_cut_short_is_refused(share, tmp_path, capsys):
    path = tmp_path / "tiny.gguf"
    write_gguf(path, decoder())
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * share)])
    with pytest.raises(ModelError, match=r"tiny\.gguf is truncated"):
        convert(path, tmp_path / "out")
    assert main([str(path), "--out", str(tmp_path / "out")]) == 2
    assert "is truncated" in capsys.readouterr().err
