"""The configs of the package's own models. This file does not import torch."""

from transformers.configuration_utils import PreTrainedConfig


class RecurrentConfig(PreTrainedConfig):
    """A recurrent baseline: word vectors, character features, recurrent layers, a head."""

    model_type = "recurrent"

    vocab_size: int = 2
    embedding_size: int = 100
    cell: str = "lstm"  # rnn (Elman, 1990), lstm, gru
    bidirectional: bool = True
    hidden_size: int = 200  # of one direction
    num_hidden_layers: int = 1
    char_features: str = "cnn"  # none, cnn, bilstm
    char_embedding_size: int = 25
    char_hidden_size: int = 50
    dropout: float = 0.5
    word_dropout: float = 0.05
    crf: bool = False
    pooling: str = "attention"  # mean, max, last, attention
    pairs: bool = False  # a classifier that reads the two texts of a pair each alone
    pad_token_id: int | None = 0
    unk_token_id: int = 1


class EncoderCrfConfig(PreTrainedConfig):
    """A transformer encoder with a linear-chain CRF over its words."""

    model_type = "encoder-crf"

    encoder: dict | None = None  # the encoder's own config, as `to_dict` gives it
    prefix_tokens: int = 1  # special tokens before the first word
    head_dropout: float = 0.1
    pad_token_id: int | None = None


def labels_of(config: PreTrainedConfig) -> list[str]:
    """The labels of a config's `id2label`, in order."""
    names = {int(i): name for i, name in (config.id2label or {}).items()}
    return [names[i] for i in range(len(names))]
