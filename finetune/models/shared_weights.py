"""An encoder-decoder that has its encoder's weights in its decoder, too.

This file imports nothing that loads checkpoints, since the Auto classes import it to know this kind of model.
"""

from transformers import AutoConfig, AutoModelForSeq2SeqLM, EncoderDecoderConfig, EncoderDecoderModel


class SharedEncoderDecoderConfig(EncoderDecoderConfig):
    """An encoder-decoder of a pretrained encoder, whose decoder has the encoder's weights."""

    model_type = "shared-encoder-decoder"

    tie_word_embeddings: bool = True


class SharedEncoderDecoderModel(EncoderDecoderModel):
    """An encoder-decoder whose decoder has the weights of its encoder, except for the attention to the source."""

    config_class = SharedEncoderDecoderConfig
    config: SharedEncoderDecoderConfig
    _tied_weights_keys = {  # noqa: RUF012
        rf"decoder\.\w+\.{part}\.(weight|bias)": rf"encoder\.{part}\.(weight|bias)"
        for part in (r"embeddings\.\w+", r"encoder\.layer\.\d+\.(attention|intermediate|output)\.[\w.]+")
    }


# See `finetune/_auto.py`.
AutoConfig.register(SharedEncoderDecoderConfig.model_type, SharedEncoderDecoderConfig, exist_ok=True)
AutoModelForSeq2SeqLM.register(SharedEncoderDecoderConfig, SharedEncoderDecoderModel, exist_ok=True)
