"""`--decoding viterbi`: the run, its files and its predictor agree, and give the best tags that fit together."""

import numpy as np
import pytest
import torch

import finetune
from finetune import data, models
from recipes.ner import NerConfig, finetune_ner
from recipes.verify import VerifyConfig, verify

SHAPE = {"hidden_size": 24, "embedding_size": 24}


def trained(folder, **flags):
    own = {"dataset_name": "samples", "model_name_or_path": "bilstm", **SHAPE, "max_seq_length": 16, "seed": 3}
    own |= {"num_train_epochs": 12, "learning_rate": 2e-2, "disable_tqdm": True}
    own |= {"load_best_model_at_end": False, "output_dir": str(folder)}
    return finetune_ner(NerConfig(**own | flags)).results


def sentences(folder):
    return data.read_conll(folder / "predictions_test.conll", tag_column=2, written_here=True, any_tag=True)


def test_the_tags_fit_together_and_none_that_do_are_more_probable(tmp_path):
    plain, fitted = (trained(tmp_path / name, decoding=name) for name in ("argmax", "viterbi"))
    assert sum(map(data.invalid_iob2, sentences(tmp_path / "argmax").tags)) > 20
    said = sentences(tmp_path / "viterbi")
    assert sum(map(data.invalid_iob2, said.tags)) == 0
    assert fitted["test_f1"] == fitted["test_f1_strict"]
    assert plain["test_f1"] != plain["test_f1_strict"]
    assert fitted["test_words"] == fitted["test_words_scored"]

    # Both have the same weights, and the argmax run gives all probabilities.
    predictor = finetune.load_predictor(tmp_path / "argmax", top_k=0)
    crf = models.LinearChainCrf(predictor.labels)  # all transitions are 0, but IOB2 forbids some
    changed, told = 0, []
    for words, tags, answer in zip(said.words, said.tags, predictor(said.words), strict=True):
        at = [{own["label"]: own["score"] for own in word} for word in answer["top_k"]]
        scores = torch.tensor([[max(word[label], 1e-9) for label in predictor.labels] for word in at]).log()
        real = torch.ones(1, len(words), dtype=torch.bool)
        wanted = crf.decode(scores[None], real, torch.zeros(1, dtype=torch.bool))[0][0]
        assert tags == [predictor.labels[tag] for tag in wanted]
        changed += tags != answer["predicted"]
        told.append([word[tag] for word, tag in zip(at, tags, strict=True)])
    assert changed > 10

    answers = finetune.predict(tmp_path / "viterbi", said.words, top_k=2)
    assert [answer["predicted"] for answer in answers] == said.tags
    for answer, probabilities in zip(answers, told, strict=True):  # of the tags, also of those that were changed
        assert answer["scores"] == pytest.approx(probabilities, abs=2e-6)
    assert verify(VerifyConfig(str(tmp_path / "viterbi"))).follows
    card = (tmp_path / "viterbi/README.md").read_text()
    assert "decoding" in card
    assert "`pipeline()` does not, so its labels may differ" in card


def test_a_word_without_subwords_stays_outside():
    tags = np.array([1, 0, 2])
    logs = np.log(np.array([[0.1, 0.8, 0.1], [0.8, 0.1, 0.1], [0.3, 0.1, 0.6]], np.float32))
    bare = np.array([False, True, False])
    found = data.fitting_tags(tags, np.where(bare[:, None], 0, logs), np.array([0, 3]), ["O", "B-X", "I-X"], bare)
    assert found.tolist() == [1, 0, 0]
