"""Where a decoder under a classification head reads its answer: at a row's last token.

transformers finds that token by ``config.pad_token_id``. It raises for batches where the key is
missing, and reads padding where the tokenizer pads with another id. Here the mask decides which
tokens are a row's own, so that a row in a batch has the logits that transformers gives it alone.

Shape suffixes: B rows, T tokens.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

PLACES = "_last_places_B"
PUBLISHED = "_published_pad_id"


def pool_by_mask(model: PreTrainedModel, pad_id: int) -> None:
    """Make ``model`` pool by the attention mask, if it is a decoder; others are left as they are.

    Which tokens count stays as the folder declares: with ``pad_token_id`` a row's last own token
    that is another one, without it the last one. ``pad_id``: written into the configuration where
    that has none, because transformers needs one.
    """
    head = _head(model)
    if head is None or not _is_read_at_tokens(model, head):
        return
    config: Any = model.config.get_text_config()
    setattr(head, PUBLISHED, config.pad_token_id)
    if config.pad_token_id is None:
        config.pad_token_id = pad_id
    model.register_forward_pre_hook(_find_places, with_kwargs=True)
    head.register_forward_hook(_pooled)


def set_published_pad_id(model: PreTrainedModel, tokenizer: Any) -> None:
    """Of a model that is about to be saved: transformers must find the token that distill found.

    ``pad_token_id`` is that of the folder that the model started from. Where that has none, it is
    the tokenizer's, unless every text ends in that token: the one before would be read.
    """
    head, config = _head(model), model.config.get_text_config()
    if not hasattr(head, PUBLISHED):
        return
    config.pad_token_id = getattr(head, PUBLISHED)
    if config.pad_token_id is None and tokenizer("a")["input_ids"][-1:] != [tokenizer.pad_token_id]:
        config.pad_token_id = tokenizer.pad_token_id


def _head(model: Any) -> nn.Linear | None:
    head = getattr(model, "score", None) or getattr(model, "classifier", None)
    is_decoder_alone = not getattr(model.config, "is_encoder_decoder", False)
    return head if is_decoder_alone and isinstance(head, nn.Linear) else None


@torch.no_grad()
def _is_read_at_tokens(model: PreTrainedModel, head: nn.Module) -> bool:
    """Whether there are logits at every token, of which one is read; tried on two tokens.

    Encoders pool hidden states instead, so that their head has one vector a row.
    """
    dims: list[int] = []
    hook = head.register_forward_hook(lambda _, given, logits: dims.append(logits.dim()))
    try:
        model(input_ids=torch.ones(1, 2, dtype=torch.long, device=model.device))
    finally:
        hook.remove()
    return dims == [3]


def _find_places(model: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    ids_BT, mask_BT = kwargs.get("input_ids"), kwargs.get("attention_mask")
    head, places_B = _head(model), None
    if ids_BT is not None and mask_BT is not None:
        own_BT = mask_BT != 0
        if (published := getattr(head, PUBLISHED)) is not None:
            own_BT = own_BT & (ids_BT != published)
        places_B = (own_BT * torch.arange(own_BT.shape[1], device=own_BT.device)).argmax(1)
    setattr(head, PLACES, places_B)


def _pooled(head: nn.Module, given: tuple[Tensor, ...], logits: Tensor) -> Tensor | None:
    """The logits of the row's place at every token, so that it does not matter which is read."""
    places_B = getattr(head, PLACES)
    if places_B is None:
        return None
    rows_B = torch.arange(len(logits), device=logits.device)
    return logits[rows_B, places_B][:, None].expand_as(logits)
