"""on_pretended_gpu.py GUARD: every head on a pretended GPU; prints, as JSON, what it gave and where it looked."""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import pretended_gpu
import torch
from torch import Tensor, nn
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    BertForTokenClassification,
)

from finetune.models import project_masked_positions, run_without_padding
from finetune.models.configuration import EncoderCrfConfig, RecurrentConfig
from finetune.models.crf import EncoderCrfForTokenClassification
from finetune.models.reader import RecurrentForQuestionAnswering
from finetune.models.recurrent import RecurrentForSequenceClassification, RecurrentForTokenClassification
from finetune.models.spans import answer_within_passage

LABELS = ["O", "B-X", "I-X"]
NAMES = {"id2label": dict(enumerate(LABELS)), "label2id": {label: i for i, label in enumerate(LABELS)}}
BERT = {
    "vocab_size": 60, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "max_position_embeddings": 32, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0,
}  # fmt: skip
RNN = {"vocab_size": 60, "embedding_size": 16, "hidden_size": 16, "dropout": 0.0, "word_dropout": 0.0, **NAMES}


def bert(head: Any, packed: bool, **extra: Any) -> Any:
    model = head(BertConfig(**BERT, **(extra or NAMES)))
    return run_without_padding(model) if packed else model


def encoder_crf(packed: bool) -> Any:
    encoder = BertConfig(**BERT).to_dict()
    model = EncoderCrfForTokenClassification(
        EncoderCrfConfig(encoder=encoder, prefix_tokens=1, head_dropout=0.0, **NAMES)
    )
    if packed:
        run_without_padding(model.encoder)
    return model


def recurrent(head: Any, **extra: Any) -> Any:
    return head(RecurrentConfig(cell="lstm", bidirectional=True, char_features="cnn", **RNN, **extra))


MODELS = {
    f"{name}{'' if packed else ', padded'}": make
    for packed in (True, False)
    for name, make in {
        "tokens": lambda p=packed: bert(BertForTokenClassification, p),
        "texts": lambda p=packed: bert(BertForSequenceClassification, p),
        "questions": lambda p=packed: answer_within_passage(bert(BertForQuestionAnswering, p, num_labels=2)),
        "masked": lambda p=packed: project_masked_positions(bert(BertForMaskedLM, p, num_labels=2)),
        "crf": lambda p=packed: encoder_crf(p),
    }.items()
} | {
    "bilstm": lambda: recurrent(RecurrentForTokenClassification),
    "bilstm-crf": lambda: recurrent(RecurrentForTokenClassification, crf=True),
    "bilstm texts": lambda: recurrent(RecurrentForSequenceClassification),
    "reader": lambda: answer_within_passage(recurrent(RecurrentForQuestionAnswering)),
}


def inputs_of(name: str, model: Any) -> dict[str, Tensor]:
    mask = (torch.arange(9) < torch.tensor([9, 4, 6])[:, None]).long()
    ids = torch.randint(5, 60, mask.shape, generator=torch.Generator().manual_seed(1)) * mask
    inputs = {"input_ids": ids, "attention_mask": mask}
    if name in ("questions", "questions, padded", "reader"):
        types = (torch.arange(9) >= 3).long() * mask
        inputs |= {"token_type_ids": types, "passage": types.clone().index_fill_(1, torch.tensor([0]), 1)}
        inputs |= {"start_positions": torch.tensor([3, 0, 4]), "end_positions": torch.tensor([5, 0, 4])}
    elif "texts" in name:
        inputs["labels"] = torch.tensor([0, 2, 1])
    else:
        inputs["labels"] = torch.where((mask == 1) & (torch.arange(9) > 0), ids % 3, -100)
    if model.config.model_type == "recurrent":
        inputs["char_ids"] = ids[..., None].expand(-1, -1, 4).contiguous()
    return inputs


def itself() -> dict[str, Any]:
    """What must be seen, and what must not."""
    x = torch.arange(4, device="cuda") + torch.tensor(1.0)  # a number is welcome everywhere
    told: dict[str, Any] = {"values": x.tolist(), "device": str(x.device)}
    for name, operation in {
        "mixed": lambda: x + torch.arange(4),
        "item": lambda: x.sum().item(),
        "nonzero": lambda: x.nonzero(),
        "mask": lambda: x[x > 2],
        "branch": lambda: bool((x > 2).any()),
        "read": lambda: x.cpu(),
        "filled": lambda: x.masked_fill(x > 2, 0.0),
        "sent": lambda: torch.ones(3).to("cuda"),
    }.items():
        pretended_gpu.looks.clear()
        pretended_gpu.copies.clear()
        try:
            operation()
            told[name] = [sum(each.values()) for each in (pretended_gpu.looks, pretended_gpu.copies)]
        except RuntimeError as error:
            told[name] = str(error)
    return told


def main() -> None:
    made = {}
    for name, make in MODELS.items():  # before there is a GPU
        torch.manual_seed(0)
        model = make()
        for parameter in model.parameters():
            nn.init.normal_(parameter, std=0.2)
        inputs = inputs_of(name, model)
        with torch.no_grad():
            made[name] = model, inputs, float(model.eval()(**inputs).loss)
    pretended_gpu.pretend(Path(sys.argv[1]))
    found: dict[str, Any] = {"itself": itself()}
    for name, (model, inputs, on_cpu) in made.items():
        model.to("cuda")
        inputs = {key: value.to("cuda") for key, value in inputs.items()}
        told: dict[str, Any] = {"on_cpu": on_cpu}
        cases = [
            (training, *precision)
            for training in (True, False)
            for precision in (("no", None), ("bf16", torch.bfloat16), ("fp16", torch.float16))
        ]
        for training, precision, dtype in cases:
            pretended_gpu.looks.clear()
            pretended_gpu.copies.clear()
            model.train(training)
            try:
                with torch.autocast("cuda", dtype, enabled=dtype is not None), torch.set_grad_enabled(training):
                    output = model(**inputs)
            except Exception as error:
                told["error"] = f"{precision}, training {training}: {type(error).__name__}: {error}"[:500]
                break
            said = {"looks": dict(pretended_gpu.looks), "copies": dict(pretended_gpu.copies)}
            said |= {"loss": output.loss.cpu().item(), "dtype": str(output.loss.dtype)}
            told[f"{'training' if training else 'evaluation'}, {precision}"] = said
        found[name] = told
    print(json.dumps(found))


if __name__ == "__main__":
    main()
