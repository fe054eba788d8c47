"""Rows of pretraining against what the tokenizers of `transformers` make of the same text."""

import json
import re
from dataclasses import replace

import numpy as np
import pytest

from finetune import data
from finetune.data.masking import IGNORED
from finetune.data.pretraining import EVAL_SEED, shares
from finetune.data.words import word_starts
from finetune.models.tokenizers import subword_tokenizer, train_tokenizer
from recipes.pretrain import PretrainConfig


@pytest.fixture
def text_file(tmp_path, sample_texts):
    path = tmp_path / "a.txt"
    path.write_text("\n\n".join("\n".join(sample_texts[i : i + 8]) for i in range(0, 160, 8)))
    return path


def rows_of(path, tokenizer, split="train", first_position=0, **settings):
    given = {"train_file": str(path), "max_seq_length": 64, "validation_split_percentage": 0} | settings
    config = PretrainConfig(**given)
    corpora = data.read_corpus(config)["train"]
    return data.pretraining_rows(
        [data.tokenize(corpus, tokenizer) for corpus in corpora], config, tokenizer, split, first_position
    )


def row(rows, i):
    part = slice(rows.offsets[i], rows.offsets[i + 1])
    return {key: values[part].tolist() for key, values in rows.tokens.items()}


@pytest.mark.parametrize("objective", ["bert", "sop", "roberta"])
def test_pairs_look_as_the_tokenizer_joins_them(text_file, tokenizer, kind, sample_texts, objective):
    """For pairs that were not cut: the ids (and for BERT the types) of `tokenizer(a, b)`."""
    form = "sentence_pair" if objective == "roberta" else "default"
    rows = rows_of(text_file, tokenizer, objective=objective, input_form=form, max_seq_length=2000).in_epoch(0)
    documents, instances = rows.documents[0], rows.instances[0]
    made, _ = rows.unmasked(np.arange(len(rows)))
    starts = {int(begin): text for begin, text in zip(documents.sentences, sample_texts, strict=False)}
    for i in range(len(rows)):
        spans = instances.spans[instances.offsets[i] : instances.offsets[i + 1]].tolist()
        sides = []
        for begin, end in spans:  # whole sentences, each a text of its own
            sentences = [ids for at, text in starts.items() if begin <= at < end
                         for ids in tokenizer(text, add_special_tokens=False)["input_ids"]]  # fmt: skip
            sides.append(sentences)
        # An own way to the same layout: the special tokens of a pair of known words, with the sides put in.
        frame = tokenizer("a", "a", return_special_tokens_mask=True) if len(sides) == 2 else None
        if frame is None:
            single = tokenizer("a", return_special_tokens_mask=True)
            special = [t for t, s in zip(single["input_ids"], single["special_tokens_mask"], strict=True) if s]
            assert row(made, i)["input_ids"] == [special[0], *sides[0], special[1]]
            continue
        ids, types, side = [], [], 0
        frame_types = frame.get("token_type_ids", [0] * len(frame["input_ids"]))
        previous = 1
        for token, special, kind_of in zip(
            frame["input_ids"], frame["special_tokens_mask"], frame_types, strict=True
        ):
            if special:
                ids, types = [*ids, token], [*types, kind_of]
            elif previous:
                ids, types, side = [*ids, *sides[side]], [*types, *[kind_of] * len(sides[side])], side + 1
            previous = special
        assert row(made, i)["input_ids"] == ids
        if "token_type_ids" in frame and objective != "roberta":
            assert row(made, i)["token_type_ids"] == types
        assert ("token_type_ids" in row(made, i)) == (objective != "roberta")


def test_packed_sentences_put_a_separator_between_documents(text_file, tokenizer):
    rows = rows_of(text_file, tokenizer, objective="roberta").in_epoch(0)
    made, words = rows.unmasked(np.arange(len(rows)))
    documents = rows.documents[0]
    special = set(tokenizer.all_special_ids)
    assert [token for token in made.tokens["input_ids"].tolist() if token not in special] == documents.tokens.tolist()
    assert (words < 0).tolist() == [token in special for token in made.tokens["input_ids"].tolist()]
    sep = tokenizer.sep_token_id
    within = sum(row(made, i)["input_ids"].count(sep) - 1 for i in range(len(rows)))
    # Each document either begins an input or follows a separator.
    begins = {int(documents.sentences[at]) for at in documents.documents[:-1]}
    first = {int(rows.instances[0].spans[at, 0]) for at in rows.instances[0].offsets[:-1]}
    assert within == len(begins - first) > 0
    assert (rows.lengths == made.lengths).all()


@pytest.mark.parametrize("unit", ["token", "whole_word", "span"])
def test_words_are_the_tokenizers_words(text_file, tokenizer, unit, sample_texts):
    """No word (by `word_ids`) of up to ten tokens is half masked, for WordPiece, byte-level BPE and Unigram."""
    rows = rows_of(text_file, tokenizer, objective="roberta", input_form="doc_sentences", masking=unit)
    half = 0
    for epoch in range(3):
        epoch_rows = rows.in_epoch(epoch)
        made = epoch_rows.take(np.arange(len(epoch_rows)))
        spans, at = epoch_rows.instances[0].spans, 0
        word_of, number = [], 0
        for text in sample_texts[:160]:
            ids = tokenizer(text, add_special_tokens=False).word_ids()
            word_of += [number + word for word in ids]
            number += ids[-1] + 1
        for i, (begin, end) in enumerate(spans.tolist()):
            chosen = np.array(row(made, i)["labels"])[1:-1] != IGNORED
            words = np.array(word_of[begin:end])
            at += len(words)
            for word in set(words.tolist()):
                half += word_of.count(word) <= 10 and 0 < chosen[words == word].mean() < 1
    assert at == len(word_of)
    assert half == 0 if unit != "token" else half > 0


JAPANESE = """今朝は雨が降っていたので、駅まで傘をさして歩いた。
図書館の窓から見える山は、もう雪で白くなっている。
彼女は毎晩、寝る前に古い小説を少しずつ読む。
新しい橋が完成すると、町の人々は川の向こうへ簡単に行けるようになった。
このパン屋は朝六時に開き、昼前にはほとんど売り切れてしまう。
先生は黒板に大きな円を描き、その中心に点を打った。
祖父の時計は百年前に作られたものだが、今でも正確に動いている。
飛行機が遅れたため、会議は午後三時から始まることになった。
子どもたちは浜辺で貝がらを集め、砂の城を作って遊んだ。
コーヒーを一杯飲んでから、コンピューターのスイッチを入れた。
"""
THAI = """เช้านี้ฝนตกฉันจึงกางร่มเดินไปสถานีรถไฟ
ภูเขาที่มองเห็นจากหน้าต่างห้องสมุดมีหมอกปกคลุมอยู่
เธออ่านนวนิยายเก่าทีละน้อยทุกคืนก่อนนอน
เมื่อสะพานใหม่สร้างเสร็จชาวบ้านก็ข้ามแม่น้ำได้สะดวกขึ้น
ร้านขนมปังนี้เปิดหกโมงเช้าและขายหมดก่อนเที่ยงเกือบทุกวัน
ครูวาดวงกลมใหญ่บนกระดานแล้วจุดตรงกลาง
นาฬิกาของคุณปู่ทำขึ้นเมื่อร้อยปีก่อนแต่ยังเดินตรงเวลา
เครื่องบินมาช้าการประชุมจึงเริ่มตอนบ่ายสามโมง
เด็กเด็กเก็บเปลือกหอยและก่อปราสาททรายที่ชายหาด
ดื่มกาแฟหนึ่งถ้วยแล้วจึงเปิดคอมพิวเตอร์
"""


@pytest.mark.parametrize("language", ["ja", "th", "zh", "en"])
@pytest.mark.parametrize("tokenizer_kind", ["wordpiece", "byte-bpe", "unigram"])
def test_as_many_tokens_are_masked_in_every_script(tmp_path, request, sample_texts, language, tokenizer_kind):
    """15 % with words and spans, also where a script puts no space between its words."""
    if language == "zh":
        articles = json.loads((request.getfixturevalue("shared") / "data/xquad/xquad.zh.json").read_text())["data"]
        text = "\n".join(part["context"] for article in articles[:4] for part in article["paragraphs"])
    else:
        text = {"ja": JAPANESE, "th": THAI, "en": "\n".join(sample_texts[:60])}[language]
    path = tmp_path / "a.txt"
    path.write_text(text)
    backend = train_tokenizer(tokenizer_kind, lambda: text.split("\n"), vocab_size=1200)
    tokenizer = subword_tokenizer(tokenizer_kind, backend)
    for unit in ("whole_word", "span"):
        rows = rows_of(path, tokenizer, objective="roberta", masking=unit)
        shares = []
        for epoch in range(12):
            made = rows.in_epoch(epoch).take(np.arange(len(rows.in_epoch(epoch))))
            shares.append(float((made.tokens["labels"] != IGNORED).mean() / (1 - 2 / 64)))
        assert 0.13 < np.mean(shares) < 0.17, (unit, np.mean(shares))


def test_words_of_scripts_without_spaces():
    """Each Chinese, Japanese and Thai piece begins a word; marks and pieces of one character do not."""
    pieces = [
        "▁The",
        "▁hou",
        "se",
        "▁是",
        "房子",
        "，",
        "2",
        "0",
        "1",
        "8",
        "年",
        "か",
        "゛",
        "กา",
        "แ",
        "ฟ",
        "ิ",
        "x",
        "y",
    ]
    text = " ".join(["The", "house", "是房子，2018年か\u3099กาแฟิxy"])
    offsets, at, ids, word = [], 0, [], -1
    for piece in pieces:
        bare = piece.replace("゛", "\u3099").lstrip("▁")
        at += text[at] == " "
        word += piece.startswith("▁")
        offsets.append((at, at + len(bare)))
        ids.append(word)
        at += len(bare)
    assert at == len(text)
    begun = [piece for piece, start in zip(pieces, word_starts(text, ids, offsets), strict=True) if start]
    assert begun == ["▁The", "▁hou", "▁是", "房子", "，", "年", "か", "กา", "แ", "ฟ", "x"]
    assert word_starts("語", [0, 0, 0], [(0, 1)] * 3) == [True, False, False]  # the bytes of one character


def test_evaluation_draws_the_same_whatever_the_flags(text_file, tokenizers):
    """15 % of single tokens, the same ones for any seed and whatever training masks."""
    flags = ({"seed": 1}, {"seed": 2, "masking": "span", "mlm_probability": 0.5, "mask_replace_prob": 0.3})
    first, second = (
        rows_of(text_file, tokenizers["wordpiece"], split="validation", **given).in_epoch(0).take(np.arange(9))
        for given in flags
    )
    assert 0.12 < (first.tokens["labels"] != IGNORED).mean() < 0.16
    assert first.tokens["input_ids"].tolist() == second.tokens["input_ids"].tolist()
    train = rows_of(text_file, tokenizers["wordpiece"], seed=EVAL_SEED + 5).in_epoch(0).take(np.arange(9))
    assert train.tokens["input_ids"].tolist() != first.tokens["input_ids"].tolist()


def test_static_masks_come_again(text_file, tokenizers):
    static = rows_of(text_file, tokenizers["wordpiece"], static_masks=True, dupe_factor=2)
    dynamic = rows_of(text_file, tokenizers["wordpiece"])

    def epochs(rows):
        return [rows.in_epoch(epoch).take(np.arange(5)).tokens["input_ids"].tolist() for epoch in range(4)]

    made = epochs(static)
    assert made[0] == made[2] != made[1] == made[3]
    assert len({str(epoch) for epoch in epochs(dynamic)}) == 4
    # The same sentences in every epoch have other masks.
    packed = rows_of(text_file, tokenizers["wordpiece"], objective="roberta", input_form="doc_sentences")
    given = [packed.in_epoch(epoch).unmasked(np.arange(5))[0].tokens["input_ids"].tolist() for epoch in (0, 1)]
    assert given[0] == given[1]
    assert len({str(epoch) for epoch in epochs(packed)}) == 4
    assert [static.rows_in(epoch) for epoch in range(4)] == [len(static.in_epoch(epoch)) for epoch in range(4)]


def test_languages_are_sampled_by_their_share(tmp_path, tokenizer):
    for name, size in (("big", 600), ("small", 20)):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{name} language, text {i}." for i in range(size)))
    settings = {"objective": "xlm-r", "input_form": "doc_sentences"}
    rows = rows_of(f"{tmp_path}/*.txt", tokenizer, **settings)
    sizes = np.array([600.0, 20.0])
    expected = sizes**0.3 / (sizes**0.3).sum()
    which = rows.in_epoch(0).which
    counts = np.bincount(which[:, 0])
    assert counts.sum() == rows.rows_in(0) == 620
    assert np.allclose(counts / 620, expected, atol=1 / 620)
    # Rounds: no row of a language comes again before each has come.
    small = np.concatenate([rows.in_epoch(epoch).which for epoch in range(3)])
    times = np.bincount(small[small[:, 0] == 1, 1], minlength=20)
    assert times.max() - times.min() <= 1
    big = np.bincount(small[small[:, 0] == 0, 1], minlength=600)
    assert big.max() - big.min() <= 1
    other = rows_of(f"{tmp_path}/*.txt", tokenizer, seed=1, **settings).in_epoch(0).which
    assert other.tolist() != which.tolist(), "another seed, another order"
    # The rows are those of the files they say they are of, in any order.
    ids = np.random.default_rng(0).permutation(620)[:40]
    taken = rows.in_epoch(0).unmasked(ids)[0]
    for i, row_id in enumerate(ids):
        source, number = which[row_id]
        text = f"{('big', 'small')[source]} language, text {number}."
        assert row(taken, i)["input_ids"] == tokenizer(text)["input_ids"]
    assert (taken.lengths == rows.in_epoch(0).lengths[ids]).all()


def test_equal_shares_and_static_rounds(tmp_path, tokenizers):
    for name, size in (("big", 60), ("small", 20)):
        (tmp_path / f"{name}.txt").write_text("\n\n".join(f"{name} language, text {i}." for i in range(size)))
    settings = {"objective": "xlm-r", "input_form": "doc_sentences", "sampling_alpha": 0.0}
    rows = rows_of(f"{tmp_path}/*.txt", tokenizers["unigram"], static_masks=True, dupe_factor=2, **settings)
    assert np.bincount(rows.in_epoch(0).which[:, 0]).tolist() == [40, 40]
    assert rows.in_epoch(0).which.tolist() == rows.in_epoch(2).which.tolist() != rows.in_epoch(1).which.tolist()


def test_the_majority_is_that_of_the_rows(text_file, tokenizers):
    seen = set()
    for seed in range(6):
        rows = rows_of(text_file, tokenizers["wordpiece"], objective="sop", seed=seed)
        every = rows.in_epoch(0)
        asked = every.take(np.arange(len(every))).samples["next_sentence_label"]
        asked = asked[asked != IGNORED]
        shares = np.bincount(asked, minlength=2) / len(asked)
        seen.add(int(shares.argmax()))
        assert rows.majority() == pytest.approx(shares.max())
    assert seen == {0, 1}, "these seeds do not test what they should"


def test_short_sequences_can_be_asked_for(text_file, tokenizers):
    lengths = [
        rows_of(text_file, tokenizers["wordpiece"], short_seq_prob=share).in_epoch(0).lengths.mean()
        for share in (0.0, 1.0)
    ]
    assert lengths[1] < lengths[0] - 2  # how much depends on the pieces that were trained


def test_only_the_first_side_is_masked_where_asked(tmp_path, tokenizers):
    (tmp_path / "a.tsv").write_text("en\tde\n" + "The blue house is here.\tDas blaue Haus.\n" * 20)
    given = {"objective": "tlm", "parallel_columns": "en,de", "mlm_probability": 0.9}
    rows = replace(rows_of(tmp_path / "a.tsv", tokenizers["wordpiece"], **given), only_first=True).in_epoch(0)
    made = rows.take(np.arange(20))
    for i in range(20):
        found = row(made, i)
        second = found["input_ids"].index(tokenizers["wordpiece"].sep_token_id)
        chosen = np.array(found["labels"]) != IGNORED
        assert chosen[:second].any()
        assert not chosen[second:].any()


def test_special_tokens_in_the_text_are_never_masked(tmp_path, tokenizer):
    special = tokenizer.all_special_tokens
    (tmp_path / "a.txt").write_text("".join(f"a {token} b\nnext one\n\n" for token in special))
    rows = rows_of(tmp_path / "a.txt", tokenizer, objective="roberta", input_form="doc_sentences").in_epoch(0)
    given, words = rows.unmasked(np.arange(len(rows)))
    assert (words[np.isin(given.tokens["input_ids"], tokenizer.all_special_ids)] == -1).all()
    if tokenizer.unk_token_id != 3:  # SentencePiece has <s> and the like among its pieces; the others do not see them
        found = set(rows.documents[0].tokens.tolist())
        assert not found & (set(tokenizer.all_special_ids) - {tokenizer.unk_token_id})


def test_files_are_one_corpus(tmp_path, tokenizers):
    """Two files of one document each: a segment that does not follow comes from the other file."""
    for name in ("a", "b"):
        (tmp_path / f"{name}.txt").write_text("".join(f"Sentence {name} number {i}.\n" for i in range(30)))
    rows = rows_of(f"{tmp_path}/*.txt", tokenizers["wordpiece"]).in_epoch(0)
    (documents,) = rows.documents
    assert len(documents) == 2
    assert [documents.place(i) for i in range(2)] == [f"{tmp_path}/a.txt:1", f"{tmp_path}/b.txt:1"]
    assert 0 < rows.instances[0].labels.mean() < 1


def test_a_table_without_pairs(tmp_path, tokenizers):
    (tmp_path / "a.tsv").write_text("en\tde\nOne.\t\nTwo.\t\n")
    with pytest.raises(ValueError, match="no row has text in two of the columns en,de"):
        rows_of(tmp_path / "a.tsv", tokenizers["wordpiece"], objective="tlm", parallel_columns="en,de")


def test_shares():
    assert shares([1000, 1000], 0.3) == [1000, 1000]
    assert shares([900, 100], 1.0) == [900, 100]
    assert shares([10_000, 1], 0.0) == [5000, 5000]
    assert shares([10_000, 1], 2.0) == [10_001, 1]  # at least one


def test_translations_count_positions_again(tmp_path, tokenizer, kind):
    (tmp_path / "a.tsv").write_text("en\tde\n" + "The blue house.\tDas blaue Haus.\n" * 2)
    # A model says what it counts positions from: RoBERTa and XLM-R start after the padding id.
    begins = 0 if kind == "wordpiece" else tokenizer.pad_token_id + 1
    settings = {"objective": "tlm", "parallel_columns": "en,de", "first_position": begins}
    rows = rows_of(tmp_path / "a.tsv", tokenizer, **settings).in_epoch(0)
    made, _ = rows.unmasked(np.arange(2))
    for i in range(2):
        found = row(made, i)
        text = found["input_ids"]
        sep = tokenizer.sep_token_id
        begin = text.index(sep) + 1
        first = begins
        # A's own separator belongs to A; where there are two, the second one begins B.
        assert found["position_ids"] == [*range(first, first + begin), *range(first, first + len(text) - begin)]
        assert (text[begin] == sep) == (kind != "wordpiece")
        assert "token_type_ids" not in found


@pytest.mark.parametrize(
    ("content", "settings", "message"),
    [
        ("One.\nTwo.\nThree.\n", {}, r"one document \(3 sentences\).*blank line between documents.*--objective sop"),
        ("One.\n\nTwo.\n\nThree.\n", {}, "each of the 3 documents is one sentence.*--sentences split"),
        ("One.\nTwo.\n\nThree.\n", {"input_form": "full_sentences"}, "--input_form full_sentences: --objective bert"),
        ("One.\nTwo.\n\nThree.\n", {"mlm_probability": 1.5}, "--mlm_probability 1.5"),
        ("One.\nTwo.\n\nThree.\n", {"mask_replace_prob": 0.95}, "--mask_replace_prob 0.95 --random_replace_prob 0.1"),
        ("One.\n\nTwo.\n\nThree.\n", {"objective": "sop"}, "each of the 3 documents is one sentence"),
        ("One.\nTwo.\n\nThree.\n", {"sampling_alpha": float("nan")}, "--sampling_alpha nan"),
        ("One.\nTwo.\n\nThree.\n", {"max_seq_length": 5}, "--max_seq_length 5"),
        ("One.\nTwo.\n\nThree.\n", {"dupe_factor": 0}, "--dupe_factor 0"),
    ],
)
def test_what_makes_no_instances(tmp_path, tokenizers, content, settings, message):
    (tmp_path / "a.txt").write_text(content)
    with pytest.raises(ValueError, match=message):
        rows_of(tmp_path / "a.txt", tokenizers["wordpiece"], **settings)


def test_the_audit_counts_and_shows(text_file, tokenizers):
    tokenizer = tokenizers["wordpiece"]
    rows = rows_of(text_file, tokenizer, max_seq_length=24).in_epoch(0)
    audit = data.instance_audit(rows, tokenizer, max_seq_length=24, batch_size=4)
    made, _ = rows.unmasked(np.arange(len(rows)))
    assert audit.instances == len(made)
    assert audit.lengths.tolist() == made.lengths.tolist()
    labels = made.samples["next_sentence_label"]
    assert audit.not_next == pytest.approx(labels.mean())
    used = set()
    for begin, end in rows.instances[0].spans.tolist():
        used.update(range(begin, end))
    assert audit.unused == len(rows.documents[0].tokens) - len(used) > 0
    assert audit.too_long[0].startswith(f"{text_file}:")
    assert 0.13 < audit.masked < 0.2
    text = str(audit)
    assert "20 documents, 160 sentences" in text
    counts = [int(line.split()[3].replace(",", "")) for line in text.splitlines() if line.startswith("  ")]
    assert sum(counts) == len(made)
    assert len(audit.examples) == 10
    for example in audit.examples:
        assert example.startswith(("[follows] ", "[does not follow] "))
        assert example.count("‹") == example.count("›") == example.count("|") >= 1


def test_written_out_as_it_was_and_as_it_is_shown(text_file, tokenizers):
    from finetune.data.audit import written_out

    tokenizer = tokenizers["wordpiece"]
    rows = rows_of(text_file, tokenizer).in_epoch(0)
    text = written_out(rows, 3, tokenizer).split("] ", 1)[1]
    for side, ids in ((r"\1", rows.unmasked(np.array([3]))[0]), (r"\2", rows.take([3]))):
        shown = re.sub(r"‹(.*?)\|(.*?)›", side, text)
        expected = tokenizer.decode(ids.tokens["input_ids"])
        assert re.sub("[ #]", "", shown) == re.sub("[ #]", "", expected)
