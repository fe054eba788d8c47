"""The public data sets of the configs: where their files are, what their licences are, and their SHA-256.

A checksum here is of the file as this project was measured on it. Where the publisher packs the file (gzip, zip), it
is the checksum of the unpacked file. A publisher that changed a file since then is noticed, not followed.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

_GITHUB = "https://raw.githubusercontent.com"
_MASAKHANE = f"{_GITHUB}/masakhane-io/masakhane-ner/main/MasakhaNER2.0/data"
_MULTI30K = f"{_GITHUB}/multi30k/dataset/master/data/task1/raw"
_SICK = "https://alt.qcri.org/semeval2014/task1/data/uploads"
_NCBI = "https://github.com/spyysalo/ncbi-disease/archive/refs/heads/master.zip"
SIDES = {"train": 32, "dev": 6, "test": 10}  # articles of XQuAD


@dataclass(frozen=True)
class Wanted:
    """A file under the data folder, or with `members` a folder of files."""

    path: str
    url: str
    sha256: str  # of a folder: of the lines "SHA-256, two spaces, name" of its files, sorted by name
    member: str = ""  # the file's name in a zip; a first folder `*` stands for any
    folder: bool = False  # all files of the folder `member` of the zip


@dataclass(frozen=True)
class DataSet:
    """A data set: what is said before it is fetched, and its files."""

    home: str
    licence: str
    files: tuple[Wanted, ...]


def _masakhaner() -> tuple[Wanted, ...]:
    sums = {
        "hau": (
            "54c537b644f246b1d1fca61318151f1e01bcd1039ac3df328aed520934bc6d0f",
            "1eee64451c25a3c96ae7fd780446ba5b29bf4eaca1b70d1d2c4ebc9571a70951",
            "64c27e3e9ce2d47ee12e6e21ae2047cdc320ef9c65baec7d1f331189a881a234",
        ),
        "pcm": (
            "cfeb244f42664d88d703308ae78b30efd96e01ee47599589bb400a37d5e0465e",
            "78b78e2ebe7a66e687216aaa205b792f1f04533382df5d8179a5b05a01c70fa6",
            "9372969a757e73d2cb1eda46c8aa08f4d5dba7d2b88235fa255e576e65b2e055",
        ),
        "swa": (
            "bdc27d69d5fb4555e988490cc8bcdd4d7516fa3d81cb838ebe978418e52d13d1",
            "9fb0d2c4e5b98e8b45bcc275bd63c08ac9b71dc8d40c187bfc0883d89dab86a0",
            "8a165881018514d8e24333e6e785f7e1774d0cdbde56cbc39b76dc87db7235d8",
        ),
        "yor": (
            "0be68a94d2433677d08c9895f29cd246dff5c199f0e80face6db69f8fccbc94d",
            "7b14a2a6abede574ab0abcbb59f06ba6fbf20629fa86dc660f9fec9a6dfa9441",
            "08a4b4cffa1ac1d80217cb371f6bacd13deaeed6c0fa43af5e69f13c42bc6ccd",
        ),
    }
    return tuple(
        Wanted(f"masakhaner/{language}/{split}.conll", f"{_MASAKHANE}/{language}/{split}.txt", sha256)
        for language, three in sums.items()
        for split, sha256 in zip(("train", "dev", "test"), three, strict=True)
    )


def _files(folder: str, rows: Mapping[str, tuple[str, str]], member: str = "") -> tuple[Wanted, ...]:
    return tuple(Wanted(f"{folder}/{name}", url, sha256, member) for name, (url, sha256) in rows.items())


_WNUT = f"{_GITHUB}/leondz/emerging_entities_17/a12ed2349a0b1916b6389a4ecc2e2ddb737e51f8"
_SST2 = f"{_GITHUB}/clairett/pytorch-sentiment-classification/master/data/SST2"
_MRPC = "https://dl.fbaipublicfiles.com/senteval/senteval_data"
_GOEMOTIONS = f"{_GITHUB}/google-research/google-research/master/goemotions/data"
_XQUAD = f"{_GITHUB}/google-deepmind/xquad/master"
DATA_SETS: dict[str, DataSet] = {
    "wnut17": DataSet(
        "https://github.com/leondz/emerging_entities_17",
        "CC BY 4.0",
        _files(
            "wnut17",
            {
                "train.conll": (
                    f"{_WNUT}/wnut17train.conll",
                    "731820e13f71af324c6b55a1575ec2ce59fbaa2a0806f8f0400b98d56cd6a7a5",
                ),
                "dev.conll": (
                    f"{_WNUT}/emerging.dev.conll",
                    "e053b752b8155113ca66e7db08af5f2f5f43ab993694e4774f1ec5bad42312d8",
                ),
                "test.conll": (
                    f"{_WNUT}/emerging.test.annotated",
                    "2aa79b764e56ec9264a1b30fdd9b70195bd00ff400b62edd8f399d5f13c178f0",
                ),
            },
        ),
    ),
    "masakhaner": DataSet(
        "https://github.com/masakhane-io/masakhane-ner",
        "CC BY-NC 4.0",
        _masakhaner(),
    ),
    "sst2": DataSet(
        "https://nlp.stanford.edu/sentiment/ (this form: a copy at github.com/clairett)",
        "not named by the publisher",
        _files(
            "sst2",
            {
                "train.tsv": (
                    f"{_SST2}/train.tsv",
                    "ec192f833a64da08f475488a77b0d0b47db47acd0f458bd18433fc793b569920",
                ),
                "dev.tsv": (f"{_SST2}/dev.tsv", "eddea6b39e601dd4e7a672b53cc40fdf6019fa80522f351206c24340ca5d9359"),
                "test.tsv": (f"{_SST2}/test.tsv", "831169c7e2e429d6026e1bdbb542f33b636e3e596caad9602ebc953c205928b7"),
            },
        ),
    ),
    "mrpc": DataSet(
        "https://www.microsoft.com/en-us/download/details.aspx?id=52398 (this form: SentEval's copy)",
        "Microsoft Research licence: research use",
        _files(
            "mrpc",
            {
                "train.tsv": (
                    f"{_MRPC}/msr_paraphrase_train.txt",
                    "61a88818ec384d8465297dda1883b469f1b22d442ab90183d13e06233b180591",
                ),
                "test.tsv": (
                    f"{_MRPC}/msr_paraphrase_test.txt",
                    "0360d0d3427a0ae14882e2b3a799df0fab6cb5203d5e8ee481949283da62acb6",
                ),
            },
        ),
    ),
    "goemotions": DataSet(
        "https://github.com/google-research/google-research/tree/master/goemotions",
        "Apache 2.0",
        _files(
            "goemotions",
            {
                "train.tsv": (
                    f"{_GOEMOTIONS}/train.tsv",
                    "1c254a142be5c00e80d819b9ae1bbd36d94b2eeb8f4b1271846508d57e57d9c5",
                ),
                "dev.tsv": (
                    f"{_GOEMOTIONS}/dev.tsv",
                    "575489c079c9de1097062a01738f998590d6b7ead66dd1c9fd1d2ba01fd8bc62",
                ),
                "test.tsv": (
                    f"{_GOEMOTIONS}/test.tsv",
                    "0587b2dd8b27b97352adbfc3fb083d46005c8946657fdc2b1ca8b1cc7f1f8be4",
                ),
                "labels.txt": (
                    f"{_GOEMOTIONS}/emotions.txt",
                    "45c3ef86782d2a4d7fedcd6d8c111aa0d0e94720689bd164fac94fefb4495a89",
                ),
            },
        ),
    ),
    "sick": DataSet(
        "https://zenodo.org/records/2787612 (this form: SemEval-2014, task 1)",
        "CC BY-NC-SA 3.0",
        (
            Wanted(
                "sick/train.tsv",
                f"{_SICK}/sick_train.zip",
                "266cf8047149bd1d68138dd30439f3122bff30069740ac6705bb6197d9f1b48e",
                "SICK_train.txt",
            ),
            Wanted(
                "sick/dev.tsv",
                f"{_SICK}/sick_trial.zip",
                "5a88cfb62f8c6bd2a3cce0f2421ba2cb8c2be5ab4a800f6f01e2c64aafb7db56",
                "SICK_trial.txt",
            ),
            Wanted(
                "sick/test.tsv",
                f"{_SICK}/sick_test_annotated.zip",
                "2b8aa806658d6fc23c6824c83776c2d4fee7556000817b5ec0f982861413b7d0",
                "SICK_test_annotated.txt",
            ),
        ),
    ),
    "multi30k": DataSet(
        "https://github.com/multi30k/dataset",
        "CC BY-NC-SA 4.0",
        _files(
            "multi30k",
            {
                "train.en": (
                    f"{_MULTI30K}/train.en.gz",
                    "460a15fbd157e34a7a9957ee388c1ca247fe47af3ef25fb50442af6c274e0fc6",
                ),
                "train.de": (
                    f"{_MULTI30K}/train.de.gz",
                    "2c2b73fd2b548fbcde3a875e0a78d6ee94d498bfdee6bd3eae3945779e9ddf72",
                ),
                "dev.en": (
                    f"{_MULTI30K}/val.en.gz",
                    "1f2a23d992769b5b3d209b0a10dd0b77c08cceb1f20dfb97ed0aafa49d107227",
                ),
                "dev.de": (
                    f"{_MULTI30K}/val.de.gz",
                    "660e09eb7e1da2f856ea13ee5ad3cf6d36b3d5b0b733c857e94c5747a3dfc660",
                ),
                "test.en": (
                    f"{_MULTI30K}/test_2016_flickr.en.gz",
                    "399a4382932c1aadd3ceb9bef1008d388a64c76d4ae4e9d4728c6f4301cac182",
                ),
                "test.de": (
                    f"{_MULTI30K}/test_2016_flickr.de.gz",
                    "4be6b5b3236b79c25475c6bb829800a7ce559e9ba7a1f6c2394fe4d40be46d16",
                ),
            },
        ),
    ),
    "xquad": DataSet(
        "https://github.com/google-deepmind/xquad",
        "CC BY-SA 4.0",
        _files(
            "xquad",
            {
                "xquad.en.json": (
                    f"{_XQUAD}/xquad.en.json",
                    "e4c57d1c9143aaa1c5d265ba5987a65f4e69528d2a98f29d6e75019b10344f29",
                ),
                "xquad.de.json": (
                    f"{_XQUAD}/xquad.de.json",
                    "990b5d746746ed65ed4702ea5f35f99ffa4e2f1c390c07d003642acd937916f9",
                ),
                "xquad.es.json": (
                    f"{_XQUAD}/xquad.es.json",
                    "dcbae93ec3a9f4b9e78fd834a171d6f96c1a875e10e15b7530b7e4ef4971e37e",
                ),
                "xquad.ru.json": (
                    f"{_XQUAD}/xquad.ru.json",
                    "208d5b1aa154c52b1b5c5eda16281e455e8fd198cdb9af3f469f0d6037d973bf",
                ),
                "xquad.zh.json": (
                    f"{_XQUAD}/xquad.zh.json",
                    "691d0b3359bc6b8faa8de931dfdfe21d50a65861ae348e32a0d1a0190b0c8835",
                ),
                "xquad.ar.json": (
                    f"{_XQUAD}/xquad.ar.json",
                    "abdabd7afed5c635d99cca0f3f0d0c9d9ed0bc77451e963c2e4e0638c29e486d",
                ),
            },
        ),
    ),
    "ncbi_disease": DataSet(
        "https://www.ncbi.nlm.nih.gov/CBBresearch/Dogan/DISEASE/ (this form: github.com/spyysalo/ncbi-disease)",
        "public domain",
        (
            Wanted(
                "ncbi_disease/conll/train.tsv",
                _NCBI,
                "5f87b0de649eccff21e6d6e49e304aace808056ecae55225ea31602192517be9",
                "*/conll/train.tsv",
            ),
            Wanted(
                "ncbi_disease/conll/devel.tsv",
                _NCBI,
                "b4e1e7efcc2a35047bf2f3d281648357470e674f555d4a26a0049ac37d59cc61",
                "*/conll/devel.tsv",
            ),
            Wanted(
                "ncbi_disease/conll/test.tsv",
                _NCBI,
                "8f088ce45dc4746592188f9e69de3d89d87f3bb8f0ed8c4a287d018123fa148d",
                "*/conll/test.tsv",
            ),
            Wanted(
                "ncbi_disease/brat/train",
                _NCBI,
                "06d6f80fca980fa5d35a455915737999157897c44f3cc15468a711ef8aae1eb2",
                "*/standoff/train",
                folder=True,
            ),
            Wanted(
                "ncbi_disease/brat/devel",
                _NCBI,
                "c1430a212981b4f6315f6f148cc5f1b5b9f1617cc3e11ee0adf1775e77f601be",
                "*/standoff/devel",
                folder=True,
            ),
            Wanted(
                "ncbi_disease/brat/test",
                _NCBI,
                "37188f9217e0d3e4f368266a1a2f805576ad53d51d956e78d7d8b8581c8be119",
                "*/standoff/test",
                folder=True,
            ),
        ),
    ),
}


def split_articles(articles: Sequence[Any]) -> dict[str, list[Any]]:
    """Splits the articles of XQuAD: the same ones in every language, no passage on two sides.

    Args:
        articles: the 48 of a language, in the order of the file.

    Returns:
        For train, dev and test 32, 6 and 10 articles, drawn with seed 0; they have 829, 140 and 221 questions.

    Raises:
        ValueError: if these are not 48 articles, or if a passage stands in the articles of two sides.
    """
    if len(articles) != sum(SIDES.values()):
        raise ValueError(f"{len(articles)} articles; XQuAD has {sum(SIDES.values())}")
    order = list(range(len(articles)))
    random.Random(0).shuffle(order)
    sides, begin = {}, 0
    for name, size in SIDES.items():
        sides[name] = [articles[i] for i in sorted(order[begin : begin + size])]
        begin += size
    passages = [{part["context"] for article in side for part in article["paragraphs"]} for side in sides.values()]
    if len(set.union(*passages)) != sum(map(len, passages)):
        raise ValueError("a passage stands in the articles of two sides")
    return sides
