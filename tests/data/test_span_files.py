"""Each tool's files: what is read of them, what is refused, and that they come back as they were."""

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from span_samples import FILES, SPANS, TEXTS, brat, doccano, label_studio, prodigy, written
from test_character_spans import TEXTS as ANY_TEXT
from test_character_spans import plain, spans_in

from finetune import data
from finetune.arguments import DataArguments
from recipes.ner import NerConfig


def read(path, **asked):
    return data.read_tagged(DataArguments(train_file=str(path), validation_split_percentage=0), **asked)["train"]


def gold(path, form, unit="auto"):
    texts = data.SPAN_READERS[form](path)
    return texts, [data.spans_of(marked, unit=unit) for marked in texts]


@pytest.mark.parametrize("name", FILES)
def test_a_file_is_recognised_and_read(name, tmp_path, caplog):
    form, make = FILES[name]
    path = make(tmp_path / name)
    rows = read(path)
    assert rows[0]["tokens"] == ["Ada", "Byron", "flew", "to", "Oslo", "."]
    assert rows[0]["ner_tags"] == ["B-PER", "I-PER", "O", "O", "B-LOC", "O"]
    assert rows[1]["tokens"] == ["😀", "Jose\u0301", "met", "Tromsø", "-based", "Eva", "."]
    assert rows[1]["ner_tags"] == ["O", "B-PER", "O", "B-LOC", "O", "B-PER", "O"]
    assert rows["document"] == {"brat": ["a", "b.1"], "doccano": ["11", "12"], "label_studio": ["5", "6"]}.get(
        form, ["1", "2"]
    )
    told = caplog.messages[-1]
    assert "texts: 2; spans: 5; words split where a span begins or ends in them: 1" in told
    others = {"brat": "not read: # 2, * 2, R 2", "relations.jsonl": "not read: relations 2"}
    assert others.get(name, "not read: relation 2" if form == "label_studio" else "") in told
    # A word of a span has the line of the span; the others have the place of the text.
    lines = {"brat": (1, 2), "label_studio": (-2, -2)}.get(form, (2, 2))
    assert (rows[1]["line"][0], rows[1]["line"][3]) == lines


@pytest.mark.parametrize("name", FILES)
def test_gold_spans_as_predictions_come_back(name, tmp_path):
    form, make = FILES[name]
    source, target = make(tmp_path / name), tmp_path / "back" / name
    target.parent.mkdir()
    texts, spans = gold(source, form)
    data.write_marked(target, source, form, texts, spans)
    if form == "brat":
        for own in source.iterdir():
            kept = [line for line in own.read_text().splitlines(True) if own.suffix != ".ann" or line[0] == "T"]
            assert (target / own.name).read_text() == "".join(kept)
        return
    before, after = (
        json.loads(path.read_text())
        if form == "label_studio"
        else [json.loads(line) for line in path.read_text().splitlines()]
        for path in (source, target)
    )
    for old, new in zip(before, after, strict=True):
        if form == "label_studio":
            (prediction,) = new.pop("predictions")
            del old["predictions"]
            assert new == old
            wanted = [result for result in old["annotations"][1]["result"] if result["type"] == "labels"]
            keys = ("from_name", "to_name", "type", "value")
            found = [{key: result[key] for key in keys} for result in prediction["result"]]
            assert found == [{key: result[key] for key in keys} for result in wanted]
        elif name == "relations.jsonl":
            assert new.pop("relations") == []
            assert [mark.pop("id") for mark in new["entities"]] == list(range(1, len(new["entities"]) + 1))
            del old["relations"]
            for mark in old["entities"]:
                del mark["id"]
            assert new == old
        else:
            starts, ends = ({token[key]: token["id"] for token in old.get("tokens", ())} for key in ("start", "end"))
            for mark in old.get("spans", ()):
                if mark["start"] in starts and mark["end"] in ends:
                    mark |= {"token_start": starts[mark["start"]], "token_end": ends[mark["end"]]}
            assert new == {key: value for key, value in old.items() if key not in ("answer", "_task_hash")}


@pytest.mark.parametrize("form", data.SPAN_READERS)
@settings(deadline=None, max_examples=40)
@given(choices=st.data())
def test_any_spans_come_back(form, tmp_path_factory, choices):
    """Through words and tags: any text, with emoji and combining marks, in the units of the file."""
    folder = tmp_path_factory.mktemp(form)
    texts = choices.draw(st.lists(ANY_TEXT, min_size=1, max_size=3))
    spans = [choices.draw(spans_in(text)) for text in texts]
    unit = choices.draw(st.sampled_from(["code_points", "utf16"]))
    source = folder / "in"
    if form == "brat":
        source.mkdir()
        for i, text in enumerate(texts):
            (source / f"{i}.txt").write_bytes(text.encode())
            (source / f"{i}.ann").write_text("")
    else:
        key = "label" if form == "doccano" else "spans"
        rows = [{"text": text, key: []} for text in texts]
        if form == "label_studio":
            rows = [{"data": {"text": text}, "annotations": [{"result": []}]} for text in texts]
        written(source, rows, listed=form == "label_studio")

    empty = data.SPAN_READERS[form](source)
    new = []
    for marked, own in zip(empty, spans, strict=True):
        places, tags, _ = data.words_and_tags(data.split_words(marked.text), [data.Span(*span) for span in own])
        new.append(data.spans_of_tags(places, tags))
    data.write_marked(folder / "out", source, form, empty, new, unit)
    if form == "label_studio":  # the prediction becomes the annotation
        tasks = json.loads((folder / "out").read_text())
        written(folder / "out", [task | {"annotations": task["predictions"]} for task in tasks], listed=True)
    again, found = gold(folder / "out", form, unit)
    assert [marked.text for marked in again] == texts
    assert [plain(own) for own in found] == spans


def test_a_file_in_utf_16_units_is_recognised(tmp_path):
    studio = label_studio(tmp_path / "studio.json", utf16=True)
    with pytest.raises(ValueError, match=r"studio.json, record 2: at 3 8 the text has 'ose") as refused:
        read(studio)
    assert "the file counts UTF-16 units, so give --span_offsets utf16" in str(refused.value)
    assert read(studio, span_offsets="utf16")["tokens"][1][:2] == ["😀", "Jose\u0301"]
    texts, spans = gold(studio, "label_studio", "utf16")
    data.write_marked(tmp_path / "out.json", studio, "label_studio", texts, spans, "utf16")
    (prediction,) = json.loads((tmp_path / "out.json").read_text())[1]["predictions"]
    assert [prediction["result"][0]["value"][key] for key in ("start", "end", "text")] == [3, 8, "Jose\u0301"]

    # Without the characters of the spans, the words tell it.
    triples = [[begin + 1, end + 1, kind] for begin, end, kind in SPANS[1]]
    path = written(
        tmp_path / "x.jsonl", [{"text": TEXTS[0], "label": SPANS[0]}, {"text": TEXTS[1], "label": triples}]
    )
    with pytest.raises(ValueError, match=r"x.jsonl:2: the offsets seem to count UTF-16 units.*--span_offsets utf16"):
        read(path)
    assert read(path, span_offsets="utf16")["tokens"][1][:2] == ["😀", "Jose\u0301"]
    assert read(path, span_offsets="code_points")["tokens"][1][1:3] == ["J", "ose\u0301"]


def test_only_what_was_annotated_is_learned_from(tmp_path, caplog):
    tasks = json.loads(label_studio(tmp_path / "studio.json").read_text())
    tasks[0]["annotations"][1]["was_cancelled"] = True
    other = tasks[1]["annotations"][1] | {"ground_truth": True, "result": []}
    tasks[1]["annotations"].append(other)
    rows = read(written(tmp_path / "x.json", tasks, listed=True))
    assert (rows["document"], set(rows["ner_tags"][0])) == (["6"], {"O"})
    assert "texts without annotation, left out: 1;" in caplog.messages[-1]
    assert "annotations of texts that have several 1" in caplog.messages[-1]

    folder = brat(tmp_path / "brat")
    (folder / "c.txt").write_text("Nobody read this.")
    (folder / "nested").mkdir()
    (folder / "nested" / "d.txt").write_text("Eva")
    (folder / "nested" / "d.ann").write_text("T1\tPER 0 3\tEva\n")
    assert read(folder)["document"] == ["a", "b.1", "nested/d"]

    rows = [json.loads(line) for line in prodigy(tmp_path / "prodigy.jsonl").read_text().splitlines()]
    rows = [rows[0] | {"answer": "reject"}, rows[1], {"text": "Eva ran."}, {"text": "No.", "answer": "accept"}]
    assert read(written(tmp_path / "p.jsonl", rows))["document"] == ["2", "4"]


@pytest.mark.parametrize(
    ("form", "content", "message"),
    [
        ("brat", "T1\tPER 0 3\tAda\nT2 PER 0 3 Ada\n", "a.ann:2: 'T2 PER 0 3 Ada' is no annotation"),
        ("brat", "T1\tPER 0 3\tAdam\n", "a.ann:1: at 0 3 the text has 'Ada', not 'Adam'"),
        ("brat", "T1\tPER 2 99\tAda\n", "a.ann:1: a span from 2 to 99, but the text has 8 characters"),
        ("doccano", {"text": "Ada ran.", "label": [[0, 3]]}, "'label' has [0, 3]; a span is"),
        ("doccano", {"text": "Ada ran.", "label": 7}, "x.json, record 2: 'label' is 7; it must be a list"),
        ("doccano", {"text": "Ada", "label": [], "labels": []}, "record 2: the spans are in 'label' or in 'labels'"),
        ("doccano", {"text": None, "label": []}, "x.json, record 2: 'text' is None; it must be a text"),
        ("doccano", [], "x.json, record 2: [] is no record; a record is an object like"),
        ("spacy", {"text": "Ada", "spans": [{"start": "0", "end": 3, "label": "PER"}]}, "'spans' has {'start'"),
        ("spacy", {"text": "Ada", "spans": [], "answer": "yes"}, "'answer' is 'yes'; it must be one"),
        ("label_studio", {"id": 1, "text": "Ada", "label": []}, "record 2: no 'data'; a task is an object"),
        ("label_studio", {"data": {"a": "x", "b": "y"}}, "'data' has 'a', 'b'; the text must"),
        ("label_studio", {"data": {"text": "a"}, "annotations": [{}]}, "record 2: an annotation is [{}]; it"),
        (
            "label_studio",
            {"data": {"text": "<b>a</b>"}, "annotations": [{"result": [{"type": "hypertextlabels"}]}]},
            "record 2: labels in HTML",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_file_is_told(form, content, message, tmp_path):
    if form == "brat":
        path = tmp_path
        (path / "a.txt").write_text("Ada ran.")
        (path / "a.ann").write_text(content)
    else:
        good = {"data": {"text": "Ada"}, "annotations": []} if form == "label_studio" else {"text": "Ada"}
        path = written(tmp_path / "x.json", [good, content], listed=True)
    with pytest.raises(ValueError, match=re.escape(message)):
        read(path, file_format=form)


def test_spans_beside_words_and_tags_do_not_count(tmp_path):
    row = {"text": "Ada saw Oslo", "tokens": ["Ada", "saw", "Oslo"], "tags": ["B-PER", "O", "B-LOC"]}
    written(tmp_path / "a.jsonl", [row | {"entities": [{"start": 0, "end": 3, "label": "PER"}]}] * 4)
    assert read(tmp_path / "a.jsonl")["ner_tags"][0] == ["B-PER", "O", "B-LOC"]


def test_a_damaged_line_is_told_and_not_a_column(tmp_path):
    rows = [{"text": "Ada ran.", "spans": [{"start": 0, "end": 3, "label": "PER"}]}] * 3
    written(tmp_path / "a.jsonl", rows)
    whole = (tmp_path / "a.jsonl").read_text()
    (tmp_path / "a.jsonl").write_text(whole[: len(whole) - 9])
    with pytest.raises(ValueError, match=r"a.jsonl:3: not JSON"):
        read(tmp_path / "a.jsonl")


def test_a_folder_and_a_list_that_are_broken_are_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no .txt file in this folder"):
        read(tmp_path, file_format="brat")
    (tmp_path / "a.ann").write_text("")
    with pytest.raises(ValueError, match=r"a.ann: its text a.txt is missing"):
        read(tmp_path)
    (tmp_path / "x.json").write_text('[\n{"text": "Ada", "label": []},\n{"text"\n]')
    with pytest.raises(ValueError, match=r"x.json:4: not JSON: Expecting ':' delimiter"):
        read(tmp_path / "x.json", file_format="doccano")
    with pytest.raises(ValueError, match=r"this is a folder; give a file with records like"):
        read(tmp_path, file_format="spacy")
    (tmp_path / "a.txt").write_text("Ada")
    (tmp_path / "b.txt").write_bytes(b"Ad\xe9")
    with pytest.raises(ValueError, match=r"b.txt:1: not UTF-8"):
        read(tmp_path)
    with pytest.raises(ValueError, match="--tagging plain: the spans of --file_format doccano are entities"):
        read(doccano(tmp_path / "d.jsonl"), tagging="plain")
    texts = data.SPAN_READERS["brat"](brat(tmp_path / "good"))
    with pytest.raises(ValueError, match="this is there already; brat needs a new folder"):
        data.write_marked(tmp_path, tmp_path / "good", "brat", texts, [[], []])
    assert not [path for path in Path(tmp_path).iterdir() if path.name.startswith(".")]


def test_brat_cuts_a_span_at_the_end_of_a_line(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"big\r\nbear ran\n")
    (tmp_path / "a.ann").write_text("T1\tX 0 3;5 9\tbig bear\n")
    texts, spans = gold(tmp_path, "brat")
    assert plain(spans[0]) == [(0, 9, "X")]
    data.write_marked(tmp_path / "out", tmp_path, "brat", texts, spans)
    assert (tmp_path / "out" / "a.ann").read_text() == "T1\tX 0 3;5 9\tbig bear\n"


def test_whole_texts_are_held_out(tmp_path, caplog):
    rows = [
        {"text": f"Ada met Eva{i}. She ran.", "spans": [{"start": 0, "end": 3, "label": "PER"}]} for i in range(20)
    ]
    path = written(tmp_path / "x.jsonl", rows)
    splits = data.read_tagged(NerConfig(train_file=str(path)))
    assert sorted(splits["train"]["document"][:] + splits["validation"]["document"][:], key=int) == [
        str(number) for number in range(1, 21)
    ]
    assert len(splits["validation"]) == 2
    assert "2 of its 20 texts are held out" in caplog.text
