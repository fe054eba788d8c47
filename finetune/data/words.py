"""Splits a text into words, and gives their places in the text.

In column files of named entities, punctuation marks are words. A model that was trained on such files needs its text
split in the same way. The first of these rules that fits is used:

1. A web or mail address, `@name`, `#tag`, an HTML entity, and an emoticon after a space are one word each.
2. Letters with a dot after each (`U.S.`) are one word. So is a capital letter with a dot before another capital
   letter (`J. Smith`). Any other dot at the end of a word is a word.
3. `'s` at the end of a word is a word, as in `Toronto 's`.
4. Each Chinese character and each Japanese kana is a word, as in the data sets of these languages.
5. Letters, marks and digits form one word. A sign of `- ' . & / : _ @ ·` between two of them belongs to the word, and
   so does a comma between digits: `AT&T`, `Jean-Luc`, `don't`, `3.14`, `1,000`. A single quotation mark before the
   word belongs to it, too, if no other one closes it: `‘yan`.
6. Any other character is a word. If it is repeated without a space, all of them are one word (`...`, `!!`).

Thai, Lao, Khmer and Burmese have no spaces between words. Here they are split only at spaces and punctuation marks,
so split their words with a tool of the language.
"""

import itertools
from collections.abc import Sequence

import regex

_SPACE = r"\s\x1c-\x1f"  # the characters for which str.isspace() is true
_SIGN = r"\p{P}\p{S}"
_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}々ー"
_IN = rf"[^{_SPACE}{_SIGN}{_CJK}]"  # letters, combining marks, digits, and invisible characters
_S = rf"['’][sS](?!{_IN})"
_CLOSED = rf"(?:[^‘’']|(?<={_IN})['’](?={_IN}))*+['’](?!{_IN})"  # after a quotation mark: another one closes it
_WORD = regex.compile(
    rf"""
      (?<!\w)(?:https?://|www\.)[^{_SPACE}<>"]*[^{_SPACE}{_SIGN}]/?
    | (?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+
    | (?<!{_IN})[@\#](?:{_IN}|_)+
    | &(?:\#\d+|amp|lt|gt|quot|nbsp|apos);
    | (?<![^{_SPACE}])(?:[:;=][-'^]?[)(\]\[DPpOo/\\|*]+|<3)(?![^{_SPACE}{_SIGN}])
    | (?<!{_IN})(?:\p{{L}}\.){{2,}}+(?!{_IN})
    | (?<!{_IN})\p{{Lu}}\.(?=[{_SPACE}]+\p{{Lu}})
    | (?<={_IN}){_S}
    | [{_CJK}]\p{{M}}*
    | (?:[‘’'](?=\p{{L}})(?!{_CLOSED}))? {_IN}+ (?: (?: (?!{_S})[-'’.&/:_@·‐‑]+ | (?<=\d),(?=\d) ) {_IN}+ )*
    | ( (?=[{_SIGN}])\X ) \1*
    | [^{_SPACE}]
    """,
    regex.VERBOSE | regex.VERSION1,
)


def split_words(text: str) -> list[tuple[int, int]]:
    """Where each word of `text` begins and ends, in order.

    The words `text[begin:end]` do not overlap. Together they have all characters of the text except white space
    (`str.isspace`).
    """
    return [match.span() for match in _WORD.finditer(text)]


_UNSPACED = regex.compile(
    r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Bopomofo}ー"
    r"\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}\p{Tibetan}\p{Javanese}\p{Balinese}"
    r"\p{Tai_Le}\p{New_Tai_Lue}\p{Tai_Tham}\p{Yi}\p{Tangut}\p{Nushu}]"
)
_MARK = regex.compile(r"\p{M}")


def word_starts(text: str, word_ids: Sequence[int | None], offsets: Sequence[tuple[int, int]]) -> list[bool]:
    """Which subwords begin a word, for masking whole words.

    The tokenizer says where its words begin. But in scripts without spaces between words (Chinese, Japanese, Thai,
    Lao, Khmer, Burmese, Tibetan ...), a word of the tokenizer may be a whole sentence. There, each subword begins a
    word, except a subword that begins with a combining mark or within a character.

    Args:
        text: the text that was tokenised.
        word_ids: for each subword, the number of its word by the tokenizer.
        offsets: where each subword begins and ends in the text.
    """
    starts = [before != word for before, word in itertools.pairwise([None, *word_ids])]
    if not _UNSPACED.search(text):
        return starts
    for i in range(1, len(starts)):
        end, (begin, _) = offsets[i - 1][1], offsets[i]
        if 0 < end <= begin < len(text) and not _MARK.match(text, begin):
            starts[i] |= any(_UNSPACED.match(text, at) is not None for at in (end - 1, begin))
    return starts
