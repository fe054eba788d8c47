import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from finetune import data
from finetune.data import split_words

TRICKY = st.text(alphabet="aB1東ー हि'’‘.,-@#:/_&<>()!\"%$😂\u200d\ufe0f\u200e\u2028\x1c\n\t🇺🇸", max_size=40)


@given(st.one_of(TRICKY, st.text(max_size=40)))
@example("http://")
@example("a\x1fb\x85c")
def test_words_are_all_characters_but_spaces_once(text):
    covered = []
    for begin, end in split_words(text):
        assert begin < end
        covered += range(begin, end)
    assert covered == [i for i, character in enumerate(text) if not character.isspace()]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("Grace Hopper was born in New York.", "Grace|Hopper|was|born|in|New|York|."),
        ("J. Smith of AT&T's U.S. office", "J.|Smith|of|AT&T|'s|U.S.|office"),
        ('He said: "No, I don\'t!" (twice)...', 'He|said|:|"|No|,|I|don\'t|!|"|(|twice|)|...'),
        ("'Hello,' she said. 'Don't go,' he said.", "'|Hello|,|'|she|said|.|'|Don't|go|,|'|he|said|."),
        ("‘yan sanda sun kama shi", "‘yan|sanda|sun|kama|shi"),
        ("10.5% of $1,000,000 at 12:30, not 1,2-3", "10.5|%|of|$|1,000,000|at|12:30|,|not|1,2-3"),
        (
            "see http://a.b/c?d=(e), www.x.com/a. or a.b@c.de.",
            "see|http://a.b/c?d=(e|)|,|www.x.com/a|.|or|a.b@c.de|.",
        ),
        ("@joe: #x_y :-) &amp; <3 great😂😂!!", "@joe|:|#x_y|:-)|&amp;|<3|great|😂😂|!!"),
        ("東京タワーへ行く。", "東|京|タ|ワ|ー|へ|行|く|。"),
        ("हिन्दी में लिखो। Tiếng Việt, ɗan ƙasa", "हिन्दी|में|लिखो|।|Tiếng|Việt|,|ɗan|ƙasa"),
        ("👩\u200d💻🇺🇸 ok", "👩\u200d💻|🇺🇸|ok"),
    ],
)
def test_rules(text, words):
    assert "|".join(text[begin:end] for begin, end in split_words(text)) == words


def share_that_agree(sentences):
    """Of the words of a column file, how many come back when they stand in a line with spaces between them."""
    agree = words = 0
    for sentence in sentences:
        spans, at = set(split_words(" ".join(sentence))), 0
        for word in sentence:
            agree += (at, at + len(word)) in spans
            at += len(word) + 1
        words += len(sentence)
    return agree / words


def test_agreement_with_the_samples(samples):
    assert share_that_agree(samples["train"]["tokens"][:]) > 0.998


@pytest.mark.parametrize(
    ("name", "share"),
    [
        ("wnut17", 0.989),
        ("masakhaner/swa", 0.999),
        ("masakhaner/yor", 0.998),
        ("masakhaner/pcm", 0.999),
        ("masakhaner/hau", 0.982),  # the file has Chinese characters where its hooked letters were
    ],
)
def test_agreement_with_column_files(shared, name, share):
    assert share_that_agree(data.read_conll(shared / f"data/{name}/train.conll").words) > share


def test_long_texts_take_time_in_proportion():
    for piece in ("東", "a'b ", "'a ", "a.b", "http://", "a@", "!?"):
        text = piece * 20_000  # a rule that looks ahead to the end from every character would take hours
        assert sum(end - begin for begin, end in split_words(text)) == len("".join(text.split()))
