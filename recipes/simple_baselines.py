"""The baselines to try before any network: a linear SVM for texts, a dictionary of tags for words.

python recipes/compare.py --task sentiment --models svm,bilstm --dataset_name samples
python recipes/compare.py --task ner --models dictionary,bilstm --dataset_name samples

from recipes.simple_baselines import train_svm
train_svm(SentimentConfig(dataset_name="samples", model_name_or_path="svm", output_dir="runs/svm"))

They write what the other recipes write, but for the model: scikit-learn's would have to be unpickled, and nothing
here ever is. Neither depends on the seed.
"""

from __future__ import annotations  # names of the lazy parts in signatures would import torch

import time
from collections import Counter
from typing import Any

import numpy as np

from finetune import data, metrics, reporting, training
from recipes import ner, sentiment

PENALTIES = (0.03, 0.1, 0.3, 1.0, 3.0)  # the SVM's C, chosen by the accuracy on the validation split


def train_svm(config: sentiment.SentimentConfig) -> training.RunResult:
    """TF-IDF of words, word pairs and runs of 2 to 5 characters, and a linear SVM (Joachims, 1998)."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.pipeline import make_union
    from sklearn.svm import LinearSVC

    # 1. The run: a folder that holds nothing else.
    run = training.start_run(sentiment.resolved(config), metrics=("accuracy", "f1_macro", "recall_macro", "loss"))
    config = run.config

    # 2. The data, and the labels of its training split.
    splits = data.read_labelled(
        config, config.text_column_name, config.label_column_name, config.text_pair_column_name
    )
    labels = data.class_labels(splits["train"])
    data.check_labels(splits, labels, "label")
    index = {label: i for i, label in enumerate(labels)}
    gold = {split: [index[label] for label in dataset["label"]] for split, dataset in splits.items()}
    columns = ["text", "text_pair"] if config.text_pair_column_name else ["text"]
    texts = {
        split: [" ".join(row) for row in zip(*(dataset[column] for column in columns), strict=True)]
        for split, dataset in splits.items()
    }

    # 3. Train: as many SVMs as there are penalties to choose from.
    began = time.perf_counter()
    features = make_union(
        TfidfVectorizer(token_pattern=r"\S+", ngram_range=(1, 2), sublinear_tf=True),
        TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 5), sublinear_tf=True),
    )
    rows = features.fit_transform(texts["train"])
    chosen: tuple[float, float, Any] | None = None
    for penalty in PENALTIES if "validation" in splits else (1.0,):
        svm = LinearSVC(C=penalty, random_state=0).fit(rows, gold["train"])
        accuracy = (
            svm.score(features.transform(texts["validation"]), gold["validation"]) if "validation" in splits else 0
        )
        if chosen is None or accuracy > chosen[0]:
            chosen = accuracy, penalty, svm
    assert chosen is not None
    svm = chosen[2]
    words = sum(len(text.split()) for text in texts["train"])
    seconds = time.perf_counter() - began
    results = _train_results(run, seconds, words, len(texts["train"]), svm.coef_.size) | {"C": chosen[1]}
    # For each feature of a text and each class a product and a sum.
    flops = 2.0 * rows.nnz / words * len(svm.coef_)

    # 4. What it says on the evaluation splits.
    run.create_folder()
    for split, name in (("validation", "eval"), ("test", "test")):
        if split in splits:
            began = time.perf_counter()
            predicted = svm.predict(features.transform(texts[split])).tolist()
            scores = metrics.classification_scores(gold[split], predicted)
            scores |= {"runtime": time.perf_counter() - began, "tokens": sum(len(t.split()) for t in texts[split])}
            results |= {f"{name}_{key}": value for key, value in scores.items()}
            run.print(f"{name}: accuracy {scores['accuracy']:.4f}  (C {chosen[1]})")
            if run.accelerator.is_main_process:
                given = [splits[split][column] for column in (*columns, "label")]
                said = ([labels[i] for i in predicted], ["" for _ in predicted])
                reporting.write_predictions(
                    run.file(f"predictions_{name}.tsv"),
                    [*columns, "label", "predicted", "score"],
                    zip(*given, *said, strict=True),
                )
    return run.finish(results | {"flops_per_token": flops}, [])


def tag_by_dictionary(config: ner.NerConfig) -> training.RunResult:
    """Each word's most frequent tag in the training split (of equally frequent ones the first), else `O`."""
    # 1. The run: a folder that holds nothing else.
    run = training.start_run(
        ner.resolved(config), metrics=("f1", "precision", "recall", "f1_strict", "accuracy", "loss")
    )
    config = run.config

    # 2. The data, and the labels of its training split.
    splits = data.read_tagged(config, config.text_column_name, config.label_column_name)
    labels = data.entity_labels(splits["train"])
    data.check_labels(splits, labels, "ner_tags")

    # 3. Train: count.
    began = time.perf_counter()
    counts: dict[str, Counter[str]] = {}
    for words, tags in zip(splits["train"]["tokens"], splits["train"]["ner_tags"], strict=True):
        for word, tag in zip(words, tags, strict=True):
            counts.setdefault(word, Counter())[tag] += 1
    dictionary = {word: found.most_common(1)[0][0] for word, found in counts.items()}
    words_seen = sum(map(len, splits["train"]["tokens"]))
    seconds = time.perf_counter() - began
    results = _train_results(run, seconds, words_seen, len(splits["train"]), len(dictionary))

    # 4. What it says on the evaluation splits.
    run.create_folder()
    index = {label: i for i, label in enumerate(labels)}
    for split, name in (("validation", "eval"), ("test", "test")):
        if split in splits:
            began = time.perf_counter()
            sentences, gold = splits[split]["tokens"], splits[split]["ner_tags"]
            predicted = [[dictionary.get(word, "O") for word in words] for words in sentences]
            runtime = time.perf_counter() - began
            offsets = np.cumsum([0, *map(len, sentences)])
            gold_ids, said_ids = (
                np.array([index[tag] for sentence in tags for tag in sentence]) for tags in (gold, predicted)
            )
            scores = metrics.entity_scores(gold_ids, said_ids, offsets, labels)
            scores |= {"runtime": runtime, "tokens": int(offsets[-1])}
            scores |= {"words": int(offsets[-1]), "words_scored": sum(map(len, predicted))}
            results |= {f"{name}_{key}": value for key, value in scores.items()}
            run.print(f"{name}: f1 {scores['f1']:.4f}")
            if run.accelerator.is_main_process:
                data.write_conll(run.file(f"predictions_{name}.conll"), sentences, gold, predicted)
    return run.finish(results | {"flops_per_token": 0.0}, [])


def _train_results(run: training.Run, seconds: float, words: int, rows: int, parameters: int) -> dict[str, float]:
    return {
        "train_runtime": round(seconds, 3),
        "train_tokens_per_second": round(words / seconds, 1),
        "train_samples_per_second": round(rows / seconds, 2),
        "peak_memory_mb": round(training.peak_memory_mb(run.accelerator.device), 1),
        "total_parameters": parameters,
    }
