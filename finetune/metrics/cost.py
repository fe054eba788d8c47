"""The cost of a prediction, counted from the weights, so that it does not depend on the machine."""

import json
from math import prod
from pathlib import Path

from safetensors import safe_open

_PROJECTIONS = ("output.weight", "lm_head.decoder", "predictions.decoder")  # of encoder-decoders, to the vocabulary


def flops_per_token(model_dir: Path, tokens_per_row: float, bytes_per_word: float = 0.0) -> float:
    """The number of floating-point operations of the forward pass, for each token of the input.

    Each weight costs two operations (Kaplan et al., 2020, "Scaling Laws for Neural Language Models", section 2.1).
    Embeddings cost none, and a pooler is not counted, because it sees only one token. The attention of a transformer
    costs another 4 x layers x tokens x hidden size. Weights of character features count once for each byte of a word.
    Training costs three times as many operations.

    Args:
        model_dir: a folder with `model.safetensors` and `config.json`.
        tokens_per_row: the mean length of an input, with the special tokens.
        bytes_per_word: the mean length of a word in UTF-8.
    """
    weights, free = 0.0, ["embedding", "pooler", "starts_word"]
    config = json.loads((model_dir / "config.json").read_text())
    if config.get("is_encoder_decoder"):  # as if the target had as many tokens as the source
        decoder = config["decoder"] if isinstance(config.get("decoder"), dict) else config
        # The projection to the vocabulary, which may be an embedding, too. It is not counted again by its name.
        weights += decoder["vocab_size"] * decoder.get("embedding_size", decoder["hidden_size"])
        free += _PROJECTIONS
    with safe_open(model_dir / "model.safetensors", "numpy") as file:
        for name in file.keys():  # noqa: SIM118  (no dict)
            if not any(part in name for part in free):
                weights += prod(file.get_slice(name).get_shape()) * (bytes_per_word if "characters" in name else 1)
    if config.get("architectures") == ["RecurrentForCausalLM"]:  # its head is the embedding
        weights += config["vocab_size"] * config["embedding_size"]
    config = config.get("encoder") if isinstance(config.get("encoder"), dict) else config
    attention = 0.0
    if "num_attention_heads" in config:
        attention = 4.0 * config["num_hidden_layers"] * config["hidden_size"] * tokens_per_row
    return 2.0 * weights + attention
