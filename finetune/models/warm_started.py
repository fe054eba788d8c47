"""Encoder-decoders of pretrained encoders (Rothe et al., 2020): BERT2BERT, RoBERTa2RoBERTa, XLM-R2XLM-R, BERT2RND.

The decoder is a copy of the encoder that sees no later word, with new attention to the source in each layer.
"""

from copy import deepcopy
from types import MethodType
from typing import Any

from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForMaskedLM,
    EncoderDecoderConfig,
    EncoderDecoderModel,
)
from transformers.modeling_outputs import Seq2SeqLMOutput

from finetune.models.attention import run_without_padding
from finetune.models.cpu_dropout import use_fast_dropout
from finetune.models.pretrained import load_config, load_pretrained, resolve
from finetune.models.seq2seq_arguments import WARM_STARTED
from finetune.models.shared_weights import SharedEncoderDecoderConfig, SharedEncoderDecoderModel
from finetune.models.target_loss import decoder_inputs, logits_and_loss


def new_warm_started(
    name: str, checkpoint: str, revision: str, *, share_weights: bool, padding_free: bool
) -> EncoderDecoderModel:
    """The encoder-decoder of this name, from the weights of a checkpoint.

    Args:
        name: one of `WARM_STARTED`.
        checkpoint: a Hub id or a folder.
        share_weights: the decoder has the encoder's weights, not a copy.

    Raises:
        ValueError: for a checkpoint of another kind, or one that does not load.
    """
    path, flag = resolve(checkpoint), "--encoder_name_or_path"
    config = load_config(path, checkpoint, revision, flag)
    if config.model_type != WARM_STARTED[name]:
        raise ValueError(
            f"{flag} {checkpoint}: a {config.model_type} checkpoint, and {name} needs a {WARM_STARTED[name]} one"
        )
    if share_weights and name == "bert2rnd":
        raise ValueError("--tie_encoder_decoder: the decoder of bert2rnd starts at random; take bert2bert")
    head: dict[str, Tensor] = {}
    if str((config.architectures or [""])[0]).endswith(("ForMaskedLM", "ForPreTraining")):
        masked = load_pretrained(AutoModelForMaskedLM, path, revision, config=config, head="saved or new")
        head = {
            key: value for key, value in masked.state_dict().items() if not key.startswith(masked.base_model_prefix)
        }
        encoder = AutoModel.from_config(config)
        encoder.load_state_dict(masked.base_model.state_dict(), strict=False)
    else:
        encoder = load_pretrained(AutoModel, path, revision, config=config, head="saved")
    decoder_config = deepcopy(config)
    decoder_config.update({"is_decoder": True, "add_cross_attention": True, "architectures": None})
    decoder = AutoModelForCausalLM.from_config(decoder_config)
    if name != "bert2rnd":
        decoder.base_model.load_state_dict(encoder.state_dict(), strict=False)
        decoder.load_state_dict(head, strict=False)
    kind, of_kind = (
        (SharedEncoderDecoderModel, SharedEncoderDecoderConfig)
        if share_weights
        else (EncoderDecoderModel, EncoderDecoderConfig)
    )
    joined = of_kind.from_encoder_decoder_configs(encoder.config, decoder.config)
    return suited(kind(config=joined, encoder=encoder, decoder=decoder), padding_free)


def suited(model: EncoderDecoderModel, padding_free: bool) -> EncoderDecoderModel:
    """The model with a forward that projects only targets to the vocabulary, and an encoder without padding.

    Without labels, the forward is the model's own. The decoder keeps its padding: see `run_without_padding`.
    """
    use_fast_dropout(model)
    for part in (model.encoder, model.decoder):  # an `EncoderDecoderModel` gives only the outermost module its config
        for module in part.modules():
            if hasattr(module, "config"):
                module.config = part.config
    if padding_free:
        run_without_padding(model.encoder)
    model.forward = MethodType(_forward, model)  # a deep copy binds it to itself
    return model


def _forward(
    self: Any,
    input_ids: Tensor | None = None,
    attention_mask: Tensor | None = None,
    decoder_input_ids: Tensor | None = None,
    labels: Tensor | None = None,
    encoder_outputs: Any = None,
    output_attentions: bool = False,
    **inputs: Any,
) -> Any:
    """`labels`: int64 (B, T), the target and its end token, no start token; -100 on padding.

    Returns: `logits` and `loss` as `logits_and_loss` makes them.
    """
    source = {"input_ids": input_ids, "attention_mask": attention_mask, "encoder_outputs": encoder_outputs}
    if labels is None:
        asked = {"output_attentions": True} if output_attentions else {}
        return type(self).forward(self, **source, decoder_input_ids=decoder_input_ids, **asked, **inputs)
    if encoder_outputs is None:
        encoder_outputs = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **inputs)
    memory = encoder_outputs[0]
    decoder = self.decoder
    found = decoder.base_model(
        input_ids=decoder_inputs(labels, self.config) if decoder_input_ids is None else decoder_input_ids,
        encoder_hidden_states=memory,
        encoder_attention_mask=attention_mask,
        use_cache=False,
        **({"output_attentions": True} if output_attentions else {}),
    )
    head: nn.Module = decoder.cls if hasattr(decoder, "cls") else decoder.lm_head
    smoothing = getattr(self.config, "label_smoothing", 0.0)
    logits, loss = logits_and_loss(found.last_hidden_state, head, labels, smoothing, self.training)
    return Seq2SeqLMOutput(
        loss=loss, logits=logits, cross_attentions=found.cross_attentions, encoder_last_hidden_state=memory
    )
