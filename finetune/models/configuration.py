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


class RecurrentSeq2SeqConfig(PreTrainedConfig):
    """A recurrent encoder-decoder, with or without attention."""

    model_type = "recurrent-seq2seq"

    is_encoder_decoder: bool = True
    source_vocab_size: int = 2
    vocab_size: int = 2  # of the target
    cell: str = "lstm"  # rnn (Elman, 1990), lstm, gru
    embedding_size: int = 256
    hidden_size: int = 256  # of the decoder; an encoder of two directions has half of it in each
    num_hidden_layers: int = 1  # of the encoder, and of the decoder
    bidirectional: bool = True  # the encoder
    attention: str = "none"  # none, additive, dot
    input_feeding: bool = False
    dropout: float = 0.3
    label_smoothing: float = 0.0
    share_embeddings: bool = False  # of source and target
    tie_word_embeddings: bool = True  # the output layer is the target's embedding
    pad_token_id: int | None = 0
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None


class TransformerSeq2SeqConfig(PreTrainedConfig):
    """The encoder-decoder of Vaswani et al. (2017)."""

    model_type = "transformer-seq2seq"

    is_encoder_decoder: bool = True
    source_vocab_size: int = 2
    vocab_size: int = 2  # of the target
    hidden_size: int = 256
    intermediate_size: int = 1024
    num_hidden_layers: int = 3  # of the encoder, and of the decoder
    num_attention_heads: int = 4
    norm_first: bool = False  # normalise the input of each sublayer, not its sum with the output
    dropout: float = 0.1
    label_smoothing: float = 0.0
    share_embeddings: bool = False  # of source and target
    tie_word_embeddings: bool = True  # the output layer is the target's embedding
    pad_token_id: int | None = 0
    eos_token_id: int | None = None
    decoder_start_token_id: int | None = None


def labels_of(config: PreTrainedConfig) -> list[str]:
    """The labels of a config's `id2label`, in order."""
    names = {int(i): name for i, name in (config.id2label or {}).items()}
    return [names[i] for i in range(len(names))]
