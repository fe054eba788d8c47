"""BLEU and chrF of summed counts against sacrebleu's corpus scores, ROUGE against rouge-score's."""

import numpy as np
import pytest
import sacrebleu
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from finetune import metrics

WORDS = st.sampled_from(["der", "Hund", "läuft,", "schnell!", "a", "1,000", "(so)", "北京", " ", "..", "zehn"])
TEXTS = st.lists(WORDS, max_size=12).map(" ".join)
PAIRS = st.lists(st.tuples(TEXTS, TEXTS) | TEXTS.map(lambda text: (text, text)), min_size=1, max_size=6)


@settings(max_examples=150, deadline=None)
@given(PAIRS, st.sampled_from(["13a", "char", "none"]))
def test_scores_of_sums_are_those_of_the_corpus(pairs, tokenize):
    gold, said = map(list, zip(*pairs, strict=True))
    counts = metrics.bleu_counts(gold, said, tokenize)
    assert metrics.bleu(counts.sum(0)) * 100 == pytest.approx(
        sacrebleu.corpus_bleu(said, [gold], tokenize=tokenize).score, abs=1e-9
    )
    letters = metrics.chrf_counts(gold, said)
    assert metrics.chrf(letters.sum(0)) * 100 == pytest.approx(sacrebleu.corpus_chrf(said, [gold]).score, abs=1e-9)
    # Many sums at once, as the bootstrap has them.
    times = np.random.default_rng(0).integers(0, 3, (4, len(pairs)))
    for score, table in ((metrics.bleu, counts), (metrics.chrf, letters)):
        assert score((times @ table).reshape(2, 2, -1)).ravel().tolist() == [score(row) for row in times @ table]


def test_the_signature_and_rouge():
    assert metrics.bleu_signature() == f"nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp|version:{sacrebleu.__version__}"
    gold, said = ["the dogs ran home", "a b"], ["a dog runs home today", ""]
    sums = metrics.rouge_counts(gold, said).sum(0)
    scorer = RougeScorer(["rouge1", "rougeL"], use_stemmer=True)
    each = [scorer.score(*pair) for pair in zip(gold, said, strict=True)]
    assert sums[0] / sums[3] == pytest.approx(np.mean([own["rouge1"].fmeasure for own in each]))
    assert sums[2] / sums[3] == pytest.approx(np.mean([own["rougeL"].fmeasure for own in each]))
    assert sums[0] > 0
