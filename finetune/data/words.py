"""Raw text -> words, and where they stand in it.

In column files of named entities punctuation marks are words of their own; a model that learned from them wants its
text split the same way. The rules, of which the first that fits counts:

1. A web or mail address, `@name`, `#tag`, an HTML entity, and an emoticon after a space are one word each.
2. Letters with dots between and behind them (`U.S.`), and a capital with a dot before another capital (`J. Smith`),
   are one word. Any other dot at the end of a word is a word.
3. `'s` at the end of a word is a word, as in `Toronto 's`.
4. Chinese characters and Japanese kana are a word each, as data sets of these languages have them.
5. Letters, marks and digits go together, with what joins two of them out of `- ' . & / : _ @ ·`, and with commas
   between digits: `AT&T`, `Jean-Luc`, `don't`, `3.14`, `1,000`. So does a single quotation mark before them that
   nothing closes: `‘yan`.
6. Any other character is a word; the same one several times in a row is one word (`...`, `!!`).

Thai, Lao, Khmer and Burmese write no spaces either, but are split at spaces and punctuation marks only: split their
words with a tool of the language.
"""

import itertools
from collections.abc import Sequence

import regex

_SPACE = r"\s\x1c-\x1f"  # what str.isspace() is true of
_SIGN = r"\p{P}\p{S}"
_CJK = r"\p{Han}\p{Hiragana}\p{Katakana}々ー"
_IN = rf"[^{_SPACE}{_SIGN}{_CJK}]"  # letters, combining marks, digits, and invisible characters
_S = rf"['’][sS](?!{_IN})"
_CLOSED = rf"(?:[^‘’']|(?<={_IN})['’](?={_IN}))*+['’](?!{_IN})"  # from a quotation mark on: there is its other one
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

    The words `text[begin:end]` do not overlap; together they are all of its characters but white space
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
    """Which subwords begin a word, for masking whole words: those that begin one by the tokenizer's own account, and
    in scripts that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese, Tibetan ...) every one.

    There, what the tokenizer calls a word may be a whole sentence. A subword that begins with a combining mark, or
    within a character, goes with the one before.

    Args:
        text: what was tokenised.
        word_ids: of each subword, as the tokenizer has it.
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
