import numpy as np
import pytest
import torch

from distill.wires import DenseWire, decode_dense
from distill.wires.base import as_array


def test_float32_comes_back_bit_for_bit():
    logits_BV = torch.randn(7, 5) * 100
    payload = as_array(DenseWire().encode(logits_BV))
    assert torch.equal(decode_dense(payload, "dense/float32"), logits_BV)


def test_bfloat16_rounds_as_torch_does_and_halves_the_bytes():
    wire = DenseWire(dtype="bfloat16")
    logits_BV = torch.cat([torch.randn(64, 5) * 100, torch.tensor([[0.0, -0.0, 1e-30, 3e38, -1]])])
    payload = as_array(wire.encode(logits_BV))
    assert payload.dtype == np.uint16
    assert payload.nbytes * 2 == logits_BV.nbytes
    decoded_BV = decode_dense(payload, wire.name)
    assert torch.equal(decoded_BV, logits_BV.bfloat16().float())
    # 8 bits of mantissa: half a unit in the last place is 2^-9 of the value.
    assert ((decoded_BV - logits_BV).abs() <= logits_BV.abs() * 2**-8).all()


def test_a_payload_is_never_read_by_another_codec():
    payload = as_array(DenseWire().encode(torch.randn(2, 3)))
    with pytest.raises(ValueError, match="dense/bfloat16"):
        decode_dense(payload, "dense/bfloat16")
    with pytest.raises(ValueError, match="topk/8"):
        decode_dense(payload, "topk/8")


def test_decoding_leaves_a_read_only_payload_alone():
    payload = as_array(DenseWire().encode(torch.zeros(2, 3)))
    payload.flags.writeable = False
    decode_dense(payload, "dense/float32").add_(1)
    assert (payload == 0).all()
