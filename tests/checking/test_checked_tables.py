"""Each table of the check, against loops written out and against small data whose faults are known."""

import json
from collections import Counter

import numpy as np
import pytest

import finetune
from finetune import checking, data
from finetune.checking import consistency, distributions, duplicates
from finetune.checking.samples import gather
from finetune.data.near_duplicates import normal_form
from recipes.check_data import main, parse
from recipes.ner import NerConfig
from recipes.question_answering import QuestionConfig
from recipes.sentiment import SentimentConfig
from recipes.seq2seq import Seq2SeqConfig

QUIET = {"model_name_or_path": "bilstm"}  # no tokenizer to load


def tagged(*sentences: str) -> list[dict]:
    """Sentences such as `Ada/B-PER ran`; a word without a tag is outside."""
    cells = [[word.partition("/") for word in sentence.split()] for sentence in sentences]
    return [{"tokens": [w for w, _, _ in row], "ner_tags": [tag or "O" for _, _, tag in row]} for row in cells]


def checked(given, config=None, **options):
    return finetune.check_data(config or NerConfig(**QUIET), given, **options)


def test_duplicates_by_a_slow_loop():
    texts = {
        "train": [
            "one two three four five",
            "A b c",
            "one two three four six",
            "x",
            "nothing like it at all",
            "a B  c",
        ],
        "validation": ["one two three four five", "y"],
        "test": ["one two three four seven", "a b c", "a b c", "z", "nothing like it in all"],
    }
    given = {name: [{"text": text, "label": str(len(text) % 2)} for text in own] for name, own in texts.items()}
    numbers = checked(given, SentimentConfig(**QUIET))["duplicates"]["numbers"]

    def near(one, other):
        a, b = normal_form(one).split(), normal_form(other).split()
        return len(a) == len(b) >= 5 and sum(x != y for x, y in zip(a, b, strict=True)) == 1

    names = list(texts)
    for b, other in enumerate(names):
        for name in names[: b + 1]:
            equal = alike = 0
            for i, text in enumerate(texts[other]):
                against = texts[name][:i] if name == other else texts[name]
                if any(normal_form(text) == normal_form(one) for one in against):
                    equal += 1
                elif any(near(text, one) for one in against):
                    alike += 1
            assert numbers[f"texts_{other}_in_{name}_equal"] == equal, (other, name)
            assert numbers[f"texts_{other}_in_{name}_nearly_equal"] == alike, (other, name)
    assert numbers["texts_test_in_train_equal"] == 2
    assert numbers["texts_test_in_train_nearly_equal"] == 2


def test_contradictions():
    given = {
        "train": [
            {"text": "good", "label": "x"},
            {"text": "Good ", "label": "y"},
            {"text": "fine", "label": "x"},
            {"text": "fine", "label": "x"},
        ]
    }
    found = checked(given, SentimentConfig(**QUIET))["contradictions"]
    assert found["numbers"] == {"texts": 1, "rows": 2}
    assert found["rows"][0]["labels"] == "x (1); y (1)"
    assert found["look"]
    given = {
        "train": [{"text": "a", "label": ["x", "y"]}, {"text": "a", "label": ["y", "x"]}, {"text": "b", "label": []}]
    }
    assert checked(given, SentimentConfig(**QUIET))["contradictions"]["numbers"]["texts"] == 0
    # Capital letters are no difference, neither in the text nor in what is annotated; other borders are one.
    given = {"train": tagged("Paris/B-LOC is nice", "PARIS/B-LOC is nice", "Old/B-LOC Oslo/I-LOC", "old Oslo/B-LOC")}
    found = checked(given)["contradictions"]
    assert [row["labels"] for row in found["rows"]] == ["Old Oslo LOC (1); Oslo LOC (1)"]
    asked = {"question": "Which?", "context": "Red or blue."}
    rows = [asked | {"answers": {"text": [text], "answer_start": [at]}} for text, at in (("Red", 0), ("blue", 7))]
    shouted = {"question": "WHICH?", "context": "RED or blue.", "answers": {"text": ["RED"], "answer_start": [0]}}
    for given, count in (([rows[0], shouted], 0), (rows, 1)):
        found = checked({"train": given}, QuestionConfig(**QUIET))["contradictions"]
        assert found["numbers"]["texts"] == count


def test_surfaces_and_borders_by_a_slow_loop(samples):
    """All places of all surfaces, by comparing words one after the other."""
    splits = {name: split.select(range(100)) for name, split in samples.items()}
    splits["test"] = splits["test"].map(  # some faults
        lambda row, i: {"ner_tags": ["O"] * len(row["tokens"]) if i % 3 else row["ner_tags"]}, with_indices=True
    )
    own = gather(splits, "token-classification", 0.7)
    spans = [finetune.metrics.entity_spans(tags) for tags in own.labels]
    surfaces = {tuple(own.words[i][a:b]) for i, row in enumerate(spans) for a, b, _ in row}
    kinds: dict[tuple, Counter] = {}
    for surface in surfaces:
        for i, words in enumerate(own.words):
            for begin in range(len(words) - len(surface) + 1):
                if tuple(words[begin : begin + len(surface)]) != surface:
                    continue
                end = begin + len(surface)
                over = [span for span in spans[i] if span[0] < end and span[1] > begin]
                if not over:
                    kinds.setdefault(surface, Counter())["not annotated"] += 1
                elif [span[:2] for span in over] == [(begin, end)]:
                    kinds.setdefault(surface, Counter())[over[0][2]] += 1
    several = {surface: own for surface, own in kinds.items() if len(own) > 1}
    section, _ = consistency.surfaces(own)
    rows = [dict(zip(section.columns, row, strict=True)) for row in section.rows]
    assert len(several) >= 5
    assert {row["words"]: row["occurrences"] for row in rows} == {
        " ".join(surface): counts.total() for surface, counts in several.items()
    }
    for row in rows:
        told = {part.rpartition(" ")[0]: int(part.rpartition(" ")[2]) for part in row["annotated as"].split(", ")}
        assert told == dict(several[tuple(row["words"].split())])


def test_borders():
    right = ["we saw the/B-ORG United/I-ORG Nations/I-ORG today"] * 3
    wrong = "they left the United/B-ORG Nations/I-ORG in May"
    within = "United/B-ORG Nations/I-ORG alone"  # another context: nothing is known of its borders
    found = checked({"train": tagged(*right, wrong, within)})["borders"]
    assert found["numbers"] == {"places": 1}
    row = found["rows"][0]
    assert (row["here"], row["in most places"]) == ("the [United Nations]", "[the United Nations]")
    assert (row["places like this"], row["places of the majority"]) == (1, 3)
    assert checked({"train": tagged(*right, within)})["borders"]["rows"] == []
    assert checked({"train": tagged(right[0], wrong)})["borders"]["rows"] == []  # one against one: no majority


def test_ill_formed_sequences():
    found = checked({"train": tagged("Ada/I-PER ran", "Ada/B-PER Oslo/I-LOC", "Ada/B-PER Lovelace/I-PER")})
    assert found["ill_formed"]["numbers"] == {"train": 2}
    assert [row["tag"] for row in found["ill_formed"]["rows"]] == ["I-PER", "I-LOC"]


def test_plain_tags_that_a_word_seldom_has():
    rows = [{"tokens": ["the", "cat"], "ner_tags": ["DET", "NOUN"]}] * 30
    rows.append({"tokens": ["the", "dog"], "ner_tags": ["NOUN", "NOUN"]})
    found = checked({"train": rows})["surfaces"]
    assert [(row["word"], row["tag"], row["places of it"]) for row in found["rows"]] == [("the", "NOUN", 30)]
    assert found["numbers"] == {"words_with_several_tags": 1, "places": 1}


def test_labels_rare_and_missing():
    given = {
        "train": [{"text": f"t {i}", "label": "a" if i else "rare"} for i in range(12)],
        "test": [{"text": f"u {i}", "label": ("a", "new")[i % 2]} for i in range(4)],
    }
    found = checked(given, SentimentConfig(**QUIET), min_examples=2)["labels"]
    assert found["numbers"] == {"labels": 3, "rare": 1, "not_in_training": 1, "written_alike": 0}
    assert [(row["label"], row["train"], row["test"]) for row in found["rows"]] == [
        ("a", 11, 2),
        ("rare", 1, 0),
        ("new", 0, 2),
    ]
    assert "Not in training, so no model can learn them: new." in found["says"]
    assert "In training but not in test: rare." in found["says"]


def test_labels_that_may_be_one():
    names = ["Very good", "very_good", "VERY-GOOD", "1-2", "12", "-1", "1", "C", "C++", "stra\u00dfe", "STRASSE"]
    given = {"train": [{"text": f"t {i}", "label": name} for i, name in enumerate(names)]}
    found = checked(given, SentimentConfig(**QUIET))["labels"]
    assert found["look"]
    assert found["numbers"]["written_alike"] == 2
    told = "Perhaps one label, written in several ways: 'STRASSE' and 'stra\u00dfe'; "
    assert told + "'VERY-GOOD' and 'Very good' and 'very_good'." in found["says"]


def test_jensen_shannon_distance_is_scipys():
    from scipy.spatial.distance import jensenshannon

    random = np.random.default_rng(0)
    one, other = random.integers(0, 9, (2, 40, 5)) + np.array([1, 0, 0, 0, 0])
    expected = [jensenshannon(a, b, base=2) for a, b in zip(one, other, strict=True)]
    assert distributions.jensen_shannon(one, other) == pytest.approx(expected)


def test_distances_of_a_split_that_is_like_training_and_of_one_that_is_not():
    random = np.random.default_rng(1)

    def rows(number, words, shares):
        labels = random.choice(["a", "b"], number, p=shares)
        return [{"text": " ".join(random.choice(words, 8)), "label": str(label)} for label in labels]

    some, others = [f"w{i}" for i in range(50)], [f"w{i}" for i in range(25, 75)]
    given = {"train": rows(300, some, [0.5, 0.5]), "validation": rows(200, some, [0.5, 0.5])}
    given["test"] = rows(200, others, [0.9, 0.1])
    found = checked(given, SentimentConfig(**QUIET))["distances"]
    values = {(row["split against train"], row["measure"].partition(":")[0]): row for row in found["rows"]}
    assert float(values["validation", "labels"]["p"]) > 0.05
    assert values["test", "labels"]["p"] == "0.005"  # the least that 200 divisions can give
    assert values["test", "classifier"]["value"] > 0.9
    assert 0.35 < values["validation", "classifier"]["value"] < 0.65
    unseen = [word not in {w for row in given["train"] for w in row["text"].split()} for row in given["test"]
              for word in row["text"].split()]  # fmt: skip
    assert values["test", "unseen words"]["value"] == pytest.approx(np.mean(unseen), abs=1e-4)
    assert values["validation", "unseen words"]["value"] == 0


def test_lengths_and_numbers():
    given = {
        "train": [{"text": "a " * n, "label": n / 2 + 0.25} for n in (1, 2, 3, 10)],
        "test": [{"text": "b", "label": 0.5}],
    }
    found = checked(given, SentimentConfig(**QUIET))
    first = found["lengths"]["rows"][0]
    assert (first["samples"], first["words"], first["least"], first["most"]) == (4, 16, 1, 10)
    assert found["lengths"]["numbers"]["longest"] == 10
    assert found["labels"]["rows"][0]["mean"] == pytest.approx(2.25)
    assert found["labels"]["rows"][0]["greatest"] == 5.25


def test_what_the_tokenizer_does(checkpoints):
    given = {"train": tagged("Ada/B-PER saw 犬 today", " ".join(["word"] * 40))}
    config = NerConfig(model_name_or_path=str(checkpoints["wordpiece"]), max_seq_length=16)
    found = checked(given, config)["tokenizer"]
    report = data.alignment_report(
        data.read_tagged(NerConfig(eval_strategy="no"), given=given)["train"],
        finetune.models.load_tokenizer(config.model_name_or_path),
        16,
    )
    assert found["numbers"]["words_cut"] == report.words_cut > 20
    assert found["numbers"]["words_unknown"] == report.words_unknown >= 1
    assert "U+72AC" in found["says"]


def test_passages_and_targets_are_measured_too(checkpoints):
    model, long = str(checkpoints["wordpiece"]), "word " * 40
    asked = {"question": "Who ran?", "context": f"Ada 犬 ran {long}"}
    rows = [asked | {"answers": {"text": ["Ada"], "answer_start": [0]}}] * 2
    found = checked({"train": rows}, QuestionConfig(model_name_or_path=model, max_seq_length=16))
    assert [(row["split"], row["samples"], row["most"]) for row in found["lengths"]["rows"]] == [
        ("train, passages", 1, 43),
        ("train, questions", 2, 2),
    ]
    assert found["tokenizer"]["numbers"]["words_cut"] > 20
    assert "words of passages past --max_seq_length 16 go into overlapping windows" in found["tokenizer"]["says"]
    assert "0 words of questions past --max_seq_length 16 are cut" in found["tokenizer"]["says"]
    assert "U+72AC" in found["tokenizer"]["says"]
    found = checked({"train": [{"source": "a b", "target": long}] * 2}, Seq2SeqConfig())
    assert found["lengths"]["numbers"]["longest"] == 40
    config = SentimentConfig(model_name_or_path=model, long_texts="window", max_seq_length=16)
    texts = [{"text": long, "label": label} for label in "ab"]
    assert "16 go into overlapping windows" in checked({"train": texts}, config)["tokenizer"]["says"]


def test_the_score_without_samples_that_training_has(tmp_path):
    from recipes.simple_baselines import tag_by_dictionary

    given = {
        "train": tagged("Ada/B-PER met Bob/B-PER in Oslo/B-LOC today", "it rained", "she left Rome/B-LOC"),
        "test": tagged("Ada/B-PER met Bob/B-PER in Oslo/B-LOC yesterday", "Bern/B-LOC is new", "Rome/B-LOC is old"),
    }
    config = NerConfig(model_name_or_path="dictionary", eval_strategy="no", output_dir=str(tmp_path / "run"))
    tag_by_dictionary(config, given)
    found = checked(given, config, run=tmp_path / "run")["score"]
    # The dictionary finds the 3 entities of the copied sentence; and Rome, but not Bern, in the others.
    f1 = {"all": 2 * 4 / (4 + 5), "without those in training": 2 * 1 / (1 + 2), "only those in training": 1.0}
    assert {row["samples"]: row["f1"] for row in found["rows"]} == pytest.approx(f1, abs=1e-4)
    assert found["numbers"]["points"] == pytest.approx(100 * (8 / 9 - 2 / 3))
    assert found["numbers"]["share"] == pytest.approx(1 / 3, abs=1e-6)
    with pytest.raises(ValueError, match="no finished run"):
        checked(given, config, run=tmp_path)


@pytest.mark.parametrize(
    ("config", "names"),
    [
        (SentimentConfig, {"duplicates", "contradictions", "labels", "lengths"}),
        (QuestionConfig, {"duplicates", "labels", "lengths"}),
        (Seq2SeqConfig, {"duplicates", "lengths"}),
    ],
)
def test_other_tasks(config, names, tmp_path):
    model = {"model_name_or_path": "bilstm"} if config is not Seq2SeqConfig else {}
    found = finetune.check_data(config(dataset_name="samples", **model), output_dir=tmp_path)
    assert names <= found.keys()
    assert json.loads((tmp_path / "data_check.json").read_text()) == found
    page = (tmp_path / "data_check.html").read_text()
    assert all(f'id="{name}"' in page for name in found)
    assert "http" not in page.replace("http-equiv", "")


def test_questions_about_a_passage_that_training_has():
    def rows(*passages):
        return [
            {"question": f"Who is {n}?", "context": text, "answers": {"text": ["Ada"], "answer_start": [0]}}
            for n, text in enumerate(passages)
        ]

    given = {
        "train": rows("Ada wrote it.", "Ada wrote it.", "Ada came."),
        "test": rows("Ada WROTE it.", "Ada slept."),
    }
    found = checked(given, QuestionConfig(**QUIET))
    numbers = found["duplicates"]["numbers"]
    assert numbers["passages_train_in_train_equal"] == 0  # a passage that questions share is no duplicate
    assert numbers["passages_test_in_train_equal"] == 1
    assert found["score"]["numbers"] == {"share": 0.5, "samples": 1}


def test_the_command(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "train.conll").write_text(
        "Ada\tB-PER\nran\tO\n\nAda\tB-PER\nran\tO\n\n<b>\tB-ORG\n\n<b>\tO\nAda\tO\n"
    )
    main(["--train_file", "train.conll", "--output_dir", "out", "--model_name_or_path", "bilstm"])
    said = capsys.readouterr().out
    assert "! Duplicates" in said
    assert "1 texts repeat an earlier text" in said
    assert "train.conll:" in said
    assert "&lt;b&gt;" in (tmp_path / "out/data_check.html").read_text()
    assert not (tmp_path / "out/patch.jsonl").exists()
    with pytest.raises(SystemExit):
        parse(["--apply", "patch.jsonl", "--folds", "7"])
    assert "--folds: --apply takes --output_dir and no other flag" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        parse(["--train_file", "a.csv"])
    assert "--task: give one of ner, sentiment" in capsys.readouterr().err


def test_flags_are_checked():
    for options, message in (({"similarity": 0}, "--?similarity 0"), ({"min_examples": -1}, "--?min_examples -1")):
        with pytest.raises(ValueError, match=message):
            checked({"train": tagged("Ada/B-PER ran")}, **options)
    with pytest.raises(ValueError, match="give one of NerConfig"):
        finetune.check_data("train.conll")


def test_nothing_is_held_out():
    given = {"train": tagged(*[f"Ada/B-PER saw {i} ships today" for i in range(40)])}
    assert checking.checked(NerConfig(**QUIET), given).samples.splits == ["train"]
    own = gather(data.read_tagged(NerConfig(eval_strategy="no"), given=given), "token-classification", 0.7)
    assert duplicates.seen_in_training(own, "train").sum() == 39  # each but the first
