"""Span heads against a loop over the rows without padding, and the best spans against all spans written out."""

import copy

import pytest
import torch
from torch.nn.functional import log_softmax

from finetune.arguments import ModelArguments
from finetune.models import best_spans, load
from finetune.models.reader import _words

ARGUMENTS = {"hidden_size": 8, "embedding_size": 8, "char_hidden_size": 4, "dropout": 0.0, "word_dropout": 0.0}


@pytest.fixture(params=["wordpiece", "byte-bpe", "unigram", "bilstm", "gru"])
def model(request, checkpoints):
    name = str(checkpoints[request.param]) if request.param in checkpoints else request.param
    torch.manual_seed(0)
    arguments = ModelArguments(model_name_or_path=name, **ARGUMENTS)
    found, _ = load("question-answering", arguments, (), words=["where does the Rhine end"], max_seq_length=32)
    return found.eval()


def batch_of(lengths, passages, types):
    torch.manual_seed(1)
    B, T = len(lengths), max(lengths)
    real = torch.arange(T) < torch.tensor(lengths)[:, None]
    inputs = {
        "input_ids": torch.randint(3, 7, (B, T)) * real,
        "attention_mask": real.long(),
        "passage": torch.zeros(B, T, dtype=torch.long),
        "char_ids": torch.randint(1, 200, (B, T, 3)) * real[..., None],
        "start_positions": torch.tensor([passages[0], 0, lengths[2] - 1]),
        "end_positions": torch.tensor([passages[0] + 1, 0, lengths[2] - 1]),
    }
    for row, (length, begin) in enumerate(zip(lengths, passages, strict=True)):
        inputs["passage"][row, [0, *range(begin, length)]] = 1
    if types:
        inputs["token_type_ids"] = (inputs["passage"] > 0).long()
        inputs["token_type_ids"][:, 0] = 0
    return inputs


def test_the_loss_is_that_of_each_row_alone(model):
    recurrent = model.config.model_type == "recurrent"
    inputs = batch_of((9, 6, 12), (4, 3, 5), types=recurrent or model.config.type_vocab_size > 1)
    if not recurrent:
        del inputs["char_ids"]
    together = model(**inputs)
    expected = []
    for row in range(3):
        length = int(inputs["attention_mask"][row].sum())
        own = {key: value[row : row + 1, :length] for key, value in inputs.items() if value.ndim > 1}
        alone = type(model).forward(model, **{key: value for key, value in own.items() if key != "passage"})
        allowed = own["passage"][0].nonzero()[:, 0].tolist()
        for side in ("start", "end"):
            logits = alone[f"{side}_logits"][0]
            at = allowed.index(int(inputs[f"{side}_positions"][row]))
            expected.append(-float(log_softmax(logits[allowed], 0)[at].detach()))
            assert together[f"{side}_logits"][row, allowed].tolist() == pytest.approx(
                logits[allowed].tolist(), abs=1e-5
            )
    assert float(together.loss) == pytest.approx(sum(expected) / 6, abs=1e-5)
    # Neither the question's tokens nor padding decide anything.
    assert (together.start_logits[inputs["passage"] == 0] < -1e30).all()


def test_a_copy_of_a_model_runs_by_itself(model):
    recurrent = model.config.model_type == "recurrent"
    inputs = batch_of((9, 6, 12), (4, 3, 5), types=recurrent or model.config.type_vocab_size > 1)
    if not recurrent:
        del inputs["char_ids"]
    before = model(**inputs).loss
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    assert torch.equal(other(**inputs).loss, before)


def test_best_spans_are_those_of_all_spans():
    torch.manual_seed(2)
    passage = torch.tensor([[1, 0, 0, 1, 1, 1, 1, 1], [1, 0, 1, 1, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0, 0, 0]])
    starts, ends = torch.randn(2, 3, 8)
    found = best_spans(starts, ends, passage, n_best=5, max_answer_length=3)
    for row in range(3):
        inside = passage[row].nonzero()[1:, 0].tolist()
        every = [
            (float(starts[row, a] + ends[row, b] - starts[row, 0] - ends[row, 0]), a, b)
            for a in inside
            for b in inside
            if a <= b < a + 3
        ]
        every = sorted(every, reverse=True)[:5]
        kept = found["scores"][row].isfinite()
        assert kept.tolist() == [True] * len(every) + [False] * (5 - len(every))
        said = zip(*(found[key][row][kept].tolist() for key in ("scores", "starts", "ends")), strict=True)
        for (score, a, b), (expected, begin, end) in zip(said, every, strict=True):
            assert (a, b) == (begin, end)
            assert score == pytest.approx(expected, abs=1e-5)


def test_the_reader_reads_no_padding_and_knows_equal_words():
    torch.manual_seed(0)
    arguments = ModelArguments(model_name_or_path="bilstm", **ARGUMENTS)
    reader, tokenizer = load("question-answering", arguments, (), words=["where does it end"], max_seq_length=32)
    reader.eval()
    words = ["<sep>", "Where", "ends", "Zxcvb", "It", "ends", "where", "zxcvb", "Zxcvb", "Qwert"]
    encoded = tokenizer([words], is_split_into_words=True, return_tensors="pt")
    keys = _words(encoded["input_ids"], encoded["char_ids"], tokenizer.unk_token_id)[0].tolist()
    # Known words are equal whatever their case; of unknown words every letter counts.
    question, passage = keys[1:4], keys[4:]
    assert [key in question for key in passage] == [False, True, True, False, True, False]
