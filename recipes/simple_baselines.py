"""The first baselines to try, before any network: a linear SVM for texts, a dictionary for tags of words, and n-grams
for the next word.

python recipes/compare.py --task sentiment --models svm,bilstm --dataset_name samples
python recipes/compare.py --task ner --models dictionary,bilstm --dataset_name samples

from recipes.simple_baselines import train_svm
train_svm(SentimentConfig(dataset_name="samples", model_name_or_path="svm", output_dir="runs/svm"))

They write their predictions and scores as the other recipes do, but no model and no card: scikit-learn stores models
as pickles, and finetune loads no pickles. Their results do not depend on the seed.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import itertools
import time
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from finetune import stages, training
from recipes import language_model, ner, sentiment

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)  # values of the SVM's C; the best one on the validation split is taken


def train_svm(config: sentiment.SentimentConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Trains a linear SVM (Joachims, 1998) on TF-IDF of words, word pairs and sequences of 2 to 5 characters.

    If a text may have several labels, each label has its own SVM, and one threshold of their distances is chosen on
    the validation split, as that of a network's probabilities is. For a number, it is a support vector regression.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union

    from finetune.tasks import classification as task

    # 1. Start the run, and read its data.
    job = stages.begin(sentiment.resolved(config), task, data)
    stages.tell_labels(job)
    run, splits = job.run, job.splits
    gold = {split: task.gold(dataset, job.labels) for split, dataset in splits.items()}
    texts = {
        split: [" ".join(words) for words in task.inputs(dataset)[0]]
        for split, dataset in (splits | job.unlabelled).items()
    }

    # 2. Train an SVM for each penalty, and keep the best one.
    began = time.perf_counter()
    features = make_union(
        TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    rows = features.fit_transform(texts["train"])
    found: list[tuple[float, float, Any, dict[str, Any]]] = []
    for penalty in PENALTIES if "validation" in splits else (1.0,):
        svm = _svm(job.settings["problem_type"], penalty).fit(rows, gold["train"])
        chosen_by = 0.0
        if "validation" in splits:
            said = _said(svm, features.transform(texts["validation"]), job.settings)
            job.settings = job.settings | task.tune(gold["validation"], said)
            chosen_by = _scores(job, gold["validation"], said)[task.headline(splits["validation"])]
        found.append((chosen_by, penalty, svm, job.settings))
    _, penalty, svm, job.settings = max(found, key=lambda one: one[0])  # if several are equally good, the first
    words = sum(len(text.split()) for text in texts["train"])
    seconds = time.perf_counter() - began
    # The SVM of a label that all texts have is a constant, without `coef_`.
    weights = sum(one.coef_.size for one in getattr(svm, "estimators_", [svm]) if hasattr(one, "coef_"))
    results = _train_results(run, seconds, words, len(texts["train"]), weights) | {"C": penalty}
    # Each feature of a text costs one product and one sum for each output.
    flops = 2.0 * rows.nnz / words * (weights / rows.shape[1])

    # 3. Save its predictions on the evaluation splits, and its scores.
    return _report(
        job,
        lambda split: _told(_said(svm, features.transform(texts[split]), job.settings), job.settings),
        results | {"flops_per_token": flops},
        f"  (C {penalty})",
    )


def _svm(problem_type: str, penalty: float) -> Any:
    from sklearn.multiclass import OneVsRestClassifier
    from sklearn.svm import LinearSVC, LinearSVR

    if problem_type == "regression":
        return LinearSVR(C=penalty, random_state=0)
    svm = LinearSVC(C=penalty, random_state=0)
    return OneVsRestClassifier(svm) if problem_type == "multi_label_classification" else svm


def _said(svm: Any, rows: Any, settings: Mapping[str, Any]) -> Any:
    """The answers of an SVM, in the form of a network's answers.

    It has no probabilities. The `scores` of several labels are distances from the SVMs' planes, brought into 0 to 1:
    0.5 is on a plane.
    """
    from scipy.special import expit

    from finetune.tasks.classification import Said

    if settings["problem_type"] == "multi_label_classification":  # with a single label, the array is one-dimensional
        return Said(None, expit(np.asarray(svm.decision_function(rows)).reshape(rows.shape[0], -1)))
    predicted = np.asarray(svm.predict(rows))
    if settings["problem_type"] == "regression":
        return Said(None, predicted.astype(np.float64))
    return Said(predicted, np.full(len(predicted), np.nan))


def _told(said: Any, settings: Mapping[str, Any]) -> Any:
    """The answers as they are written: of several labels those that the threshold gives, without a probability."""
    from finetune.tasks.classification import Said, chosen

    if settings["problem_type"] != "multi_label_classification":
        return said
    return Said(chosen(said, settings), np.full(len(said.scores), np.nan))


def _scores(job: stages.Job, gold: Any, said: Any) -> dict[str, float]:
    counts = job.task.counts(gold, said, job.labels, job.settings)
    scores: dict[str, float] = job.task.score(counts.sum(0), job.labels, job.settings)
    return scores | stages.asked(job.task, "remarks", gold, said)


def tag_by_dictionary(config: ner.NerConfig, data: Mapping[str, Any] | None = None) -> training.RunResult:
    """Gives each word its most frequent tag in the training split. If two are equally frequent, the first one counts.

    Unknown words get the tag `O`, or the most frequent tag if there is no `O`.
    """
    from finetune.tasks import tagging as task

    # 1. Start the run, and read its data.
    job = stages.begin(ner.resolved(config), task, data)
    stages.tell_labels(job)
    run, splits = job.run, job.splits

    # 2. Train: count the tags of each word.
    began = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    for words, tags in zip(splits["train"]["tokens"], splits["train"]["ner_tags"], strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    index = {label: i for i, label in enumerate(job.labels)}
    dictionary = {word: index[found.most_common(1)[0][0]] for word, found in counts.items()}
    words_seen = sum(map(len, splits["train"]["tokens"]))
    seconds = time.perf_counter() - began
    results = _train_results(run, seconds, words_seen, len(splits["train"]), len(dictionary))

    # 3. Save its predictions on the evaluation splits, and its scores.
    def say(split: str) -> Any:
        sentences = (splits | job.unlabelled)[split]["tokens"]
        predicted = np.array([dictionary.get(word, 0) for words in sentences for word in words])
        return task.Said(predicted, np.zeros(len(predicted)), len(predicted))

    return _report(job, say, results | {"flops_per_token": 0.0})


def _report(
    job: stages.Job, say: Callable[[str], Any], results: dict[str, float], remark: str = ""
) -> training.RunResult:
    """Evaluates a baseline, and saves its predictions and its scores.

    Args:
        say: split -> the answers of the baseline.
        remark: is added to the printed scores.
    """
    run, task = job.run, job.task
    run.create_folder()
    for split, name in stages.SPLITS:
        if split in job.splits:
            dataset = job.splits[split]
            began = time.perf_counter()
            said = say(split)
            runtime = time.perf_counter() - began
            scores = _scores(job, task.gold(dataset, job.labels), said)
            scores |= {"runtime": runtime, "tokens": sum(map(len, task.inputs(dataset)[0]))}
            results |= {f"{name}_{key}": value for key, value in scores.items()}
            score = task.headline(dataset)
            run.print(f"{name}: {score} {scores[score]:.4f}{remark}")
            if run.accelerator.is_main_process:
                task.write(run.file, name, dataset, said, job.labels, job.settings)
    for split, dataset in job.unlabelled.items():
        results |= stages.tell_unlabelled(job, split)
        if run.accelerator.is_main_process:
            task.write(run.file, split, dataset, say(split), job.labels, job.settings)
    return run.finish(results, [])


def count_ngrams(config: language_model.LanguageModelConfig) -> training.RunResult:
    """Unigrams, or 5-grams, of the same subwords that the networks predict (see `finetune.models.KneserNey`)."""
    from finetune import models
    from finetune.tasks import next_word as task

    # 1. The run, and its data.
    job = stages.begin(language_model.resolved(config), task)
    run, splits, config = job.run, job.splits, job.config

    # 2. Train: count.
    tokenizer = models.tokenizer_for_language_model(
        lambda: task.sentences(splits["train"]),
        name=config.model_name_or_path,
        revision=config.model_revision,
        tokenizer_name=config.tokenizer_name,
        vocab_size=config.vocab_size,
    )
    encoded = {split: task.encode(dataset, tokenizer, [], config) for split, dataset in splits.items()}
    texts = {split: _targets(part.rows) for split, part in encoded.items()}
    began = time.perf_counter()
    order = 1 if config.model_name_or_path == "unigram" else 5
    model = models.KneserNey(texts["train"], order, len(tokenizer))
    seconds, tokens = time.perf_counter() - began, sum(map(len, texts["train"]))
    parameters = sum(len(part.ngrams) + len(part.contexts) for part in model.orders)
    results = _train_results(run, seconds, tokens, len(splits["train"]), parameters)

    # 3. What it says on the evaluation splits.
    run.create_folder()
    for split, name in stages.SPLITS:
        if split in splits:
            began = time.perf_counter()
            nll = -model.log_probabilities(texts[split])
            rows = encoded[split].rows
            said = task.decode(encoded[split], {"nll": np.add.reduceat(nll, _begins(rows))})
            scores = _scores(job, task.gold(splits[split], []), said)
            scores |= {"loss": float(nll.mean()), "tokens": len(nll), "runtime": time.perf_counter() - began}
            results |= {f"{name}_{key}": value for key, value in scores.items()}
            run.print(f"{name}: perplexity {scores['perplexity']:.4f}")
            if run.accelerator.is_main_process:
                task.write(run.file, name, splits[split], said, job.labels, job.settings)
    return run.finish(results | {"flops_per_token": 0.0}, [])


def _targets(rows: Any) -> list[np.ndarray]:
    """The tokens of each document, and the one that ends it."""
    documents = rows.documents
    begins = documents.sentences[documents.documents]
    return [np.append(documents.tokens[a:b], rows.end) for a, b in itertools.pairwise(begins)]


def _begins(rows: Any) -> np.ndarray:
    """Where each row of an evaluation begins among the targets of all documents."""
    return np.concatenate([[0], np.cumsum(rows.windows.targets)[:-1]])


def _train_results(run: training.Run, seconds: float, words: int, rows: int, parameters: int) -> dict[str, float]:
    return {
        "train_runtime": round(seconds, 3),
        "train_tokens_per_second": round(words / seconds, 1),
        "train_samples_per_second": round(rows / seconds, 2),
        "peak_memory_mb": round(training.peak_memory_mb(run.accelerator.device), 1),
        "total_parameters": parameters,
    }
