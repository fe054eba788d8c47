"""A trained model as a small HTTP service. It labels requests that arrive together in one batch.

python recipes/serve.py --model_name_or_path runs/ner --port 8000
python recipes/serve.py --model_name_or_path runs/ner-onnx --runtime onnx --port 8000
curl -H 'Content-Type: application/json' -d '{"inputs": ["Grace Hopper was born in New York."]}' \\
    http://127.0.0.1:8000/predict

docs/serving.md has the requests, the limits and the errors. SIGTERM and Ctrl-C end the service when it has answered
the requests that it has.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import os
from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

import finetune
from finetune import cli
from finetune.arguments import flag


@dataclass
class ServeConfig:
    """All flags of this recipe."""

    model_name_or_path: str | None = flag(None, "The folder of a run, or a fine-tuned model of the Hub.")
    model_revision: str = flag("main", "Branch, tag or commit of a Hub model.")
    runtime: Literal["torch", "onnx"] = flag(
        "torch", "onnx: for a folder that recipes/export.py made; it needs no torch."
    )
    host: str = flag("127.0.0.1", "The address to serve on; 0.0.0.0 serves every network of this machine.")
    port: int = flag(8000, "The port to serve on; 0 takes one that is free.")
    batch_texts: int = flag(128, "Largest number of texts in one call of the model, sorted by length into batches.")
    batch_wait: float = flag(0.005, "Seconds that a text waits for others while the model is idle.")
    per_device_eval_batch_size: int = flag(32, "Number of windows or texts in one batch.")
    max_seq_length: int | None = flag(
        None, "Largest number of subwords in a window, with the special tokens [as in training; else 128]."
    )
    doc_stride: int | None = flag(
        None, "Number of subwords that two neighbouring windows share [as in training; else half a window]."
    )
    max_body_bytes: int = flag(1_000_000, "Largest body of a request.")
    max_texts: int = flag(256, "Largest number of inputs in a request.")
    max_characters: int = flag(100_000, "Largest number of characters in an input.")
    max_seconds: float = flag(30.0, "Longest time that a request takes, from its body to its answers.")
    max_queue: int = flag(
        1024, "Largest number of texts that wait for the model, and of requests that are open at once."
    )


def serve_model(config: ServeConfig) -> None:
    """Serves a model until SIGTERM or Ctrl-C. Raises ValueError for a mistake that the user can correct."""
    # 1. Check the flags, and take the address before the model is loaded.
    check(config)
    from finetune.serving import app, server

    with server.bound(config.host, config.port) as address:
        # 2. Load the model.
        predictor = finetune.load_predictor(
            str(config.model_name_or_path),
            batch_size=config.per_device_eval_batch_size,
            max_seq_length=config.max_seq_length,
            doc_stride=config.doc_stride,
            revision=config.model_revision,
            runtime=config.runtime,
        )

        # 3. Serve it.
        limits = app.Limits(**{own.name: getattr(config, f"max_{own.name}") for own in fields(app.Limits)})
        service = app.application(
            predictor,
            name_of(str(config.model_name_or_path)),
            limits,
            batch_texts=config.batch_texts,
            batch_wait=config.batch_wait,
        )
        print(f"{server.address_of(address)} serves {config.model_name_or_path}; Ctrl-C ends it", flush=True)
        server.serve(service, address, config.max_seconds)


def check(config: ServeConfig) -> None:
    """Raises ValueError for flags that cannot be meant, and if the server is not installed."""
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
    except ImportError as error:
        raise ValueError(
            f'{error.name} is not installed; the extra `serve` brings it: pip install "finetune-recipes[serve]"'
        ) from error
    if config.model_name_or_path is None:
        raise ValueError("--model_name_or_path is missing: give the folder of a run, or a model of the Hub")
    if int(os.environ.get("WORLD_SIZE", 1)) > 1:
        raise ValueError("this recipe runs in one process; start it with python, not with several processes")
    if not 0 <= config.port < 2**16:
        raise ValueError(f"--port {config.port}: must be from 0 to 65,535")
    positive = ("batch_texts", "per_device_eval_batch_size", "max_body_bytes", "max_texts", "max_characters")
    for name in (*positive, "max_queue"):
        if getattr(config, name) < 1:
            raise ValueError(f"--{name} {getattr(config, name)}: must be at least 1")
    if not 0 <= config.batch_wait < config.max_seconds < float("inf"):
        raise ValueError(
            f"--batch_wait {config.batch_wait}, --max_seconds {config.max_seconds}: the first must be at least "
            "0, and less than the second"
        )
    if config.max_queue < config.max_texts:
        raise ValueError(
            f"--max_queue {config.max_queue}: must be at least --max_texts {config.max_texts}, or the largest "
            "request would always be refused"
        )


def name_of(model: str) -> str:
    """The name of the model for those who ask: a Hub id, or the last part of a path."""
    return Path(model).resolve().name if Path(model).exists() else model


def main(argv: Sequence[str] | None = None) -> None:
    """The command line."""
    config = cli.parse(ServeConfig, argv)
    cli.run(serve_model, config)


if __name__ == "__main__":
    main()
