"""Reads the columns that are asked for from files, folders and data sets of the Hub, in any supported form.

`tagged_sentences.py` and `labelled_texts.py` make data sets of them. For messages, their columns `source` and `line`
say where a row comes from. In a column file, `line` has the line of each word. If a form has no lines, `line` is the
negative number of the row.
"""

import csv
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.parquet
from huggingface_hub import HfApi

from finetune.arguments import DataArguments
from finetune.data.conll import read_lines
from finetune.data.json_lines import json_file_rows
from finetune.data.labels import declare, tell_of_lost_labels
from finetune.data.messages import delimiter_hint, listed, shown, source_name
from finetune.spelling import did_you_mean

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
_OTHER_NAMES = ("dev", "valid", "val", "devel", "development")  # of a data set's validation split
_SAVED = ("dataset_info.json", "dataset_dict.json")  # one of them is in a folder of save_to_disk
_HUB_FILES = (".csv", ".tsv", ".json", ".jsonl", ".parquet")
_FORMS = (
    "a .jsonl, .csv, .tsv or .parquet file, a folder written by save_to_disk, or for words with tags a .conll file"
)

_test_is_read: ContextVar[bool] = ContextVar("test_is_read", default=True)
_unlabelled: ContextVar[dict[str, datasets.Dataset] | None] = ContextVar("unlabelled", default=None)


@contextmanager
def without_test_data() -> Iterator[None]:
    """While this lasts, no test split is read, even if flags name one. A search must not see it."""
    token = _test_is_read.set(False)
    try:
        yield
    finally:
        _test_is_read.reset(token)


@contextmanager
def keeping_unlabelled() -> Iterator[dict[str, datasets.Dataset]]:
    """While this lasts, a test split without labels comes into the dictionary. Otherwise it is left out."""
    kept: dict[str, datasets.Dataset] = {}
    token = _unlabelled.set(kept)
    try:
        yield kept
    finally:
        _unlabelled.reset(token)


def splits_to_read() -> tuple[str, ...]:
    """The names of the splits that are read: all, or without `test`."""
    return SPLITS if _test_is_read.get() else SPLITS[:2]


def sources_of(
    config: DataArguments, samples: str, given: Mapping[str, Any] | None = None
) -> dict[str, Path | datasets.Dataset]:
    """The file, folder, loaded Hub split or given rows of each split.

    Args:
        samples: the name of the sample data.
        given: rows from Python, as `given_splits` takes them. Then the config names no data.
    """
    files = {split: getattr(config, f"{split}_file") for split in splits_to_read()}
    sources: dict[str, Path | datasets.Dataset] = {}
    if given is not None:
        sources.update(given_splits(config, given))
    if config.dataset_config_name is not None and config.dataset_name in (None, "samples"):
        raise ValueError(
            f"--dataset_config_name {config.dataset_config_name}: it needs a data set of the Hub, --dataset_name"
        )
    if config.dataset_name == "samples":
        folder = Path(__file__).parent / "samples" / samples
        if not folder.is_dir():
            raise ValueError(f"--dataset_name samples: there are none for {samples}; give --train_file")
        sources.update({path.stem: path for path in folder.iterdir() if path.stem in SPLITS})
    elif config.dataset_name is not None and is_saved(Path(config.dataset_name)):
        saved = load_saved(config.dataset_name)
        if not isinstance(saved, datasets.DatasetDict):
            saved = datasets.DatasetDict(train=saved)
        sources.update(_splits_of(saved, config.dataset_name))
    elif config.dataset_name is not None:
        hub = load_hub(config.dataset_name, config.dataset_config_name)
        sources.update(_splits_of(hub, config.dataset_name))
    for split, name in files.items():
        if name is not None:
            path = Path(name)
            sources[split] = path
            if not path.exists():
                raise ValueError(f"--{split}_file {name}: no such file")
    if "train" not in sources:
        if given is not None:
            raise ValueError("data: no training data; give data['train']")
        raise ValueError("no training data: give --train_file, or a --dataset_name with a train split")
    fold = getattr(config, "fold", None)
    if fold is not None:
        if left := sorted(sources.keys() - {"train"}):
            logger.warning("--fold %s: the folds are of the training data; not read: %s", fold, listed(left))
        return {"train": sources["train"]}
    return {split: sources[split] for split in splits_to_read() if split in sources}


def given_splits(config: DataArguments, given: Mapping[str, Any]) -> dict[str, datasets.Dataset]:
    """Rows from Python as data sets.

    Args:
        given: for `train`, and for `validation` and `test` if there are any: a `datasets.Dataset`, a frame of
            pandas or polars, a list with a dict for each row, or a dict with a list for each column.

    Raises:
        ValueError: for another split, for rows in another form, and if the config names data, too.
    """
    named = [name for name in ("dataset_name", *(f"{split}_file" for split in SPLITS)) if getattr(config, name)]
    if named:
        raise ValueError(f"--{named[0]}: data is given from Python, too; leave one of them out")
    if isinstance(given, datasets.DatasetDict):
        return _splits_of(given, "data")
    if not isinstance(given, Mapping):
        raise ValueError(f'data is a {type(given).__name__}; give its rows as a split: data={{"train": ...}}')
    for split in given:
        if split not in SPLITS:
            hint = did_you_mean(str(split), SPLITS) or f"; choose from {', '.join(SPLITS)}"
            raise ValueError(f"data[{split!r}]: no split of a run{hint}")
    return {split: _given(rows, f"data[{split!r}]") for split, rows in given.items()}


def _given(rows: Any, name: str) -> datasets.Dataset:
    package = type(rows).__module__.partition(".")[0]
    try:
        if isinstance(rows, datasets.Dataset):
            return rows
        if package == "pandas":
            return datasets.Dataset.from_pandas(rows, preserve_index=False)
        if package == "polars":
            return datasets.Dataset(rows.to_arrow())
        if isinstance(rows, Mapping):
            return datasets.Dataset.from_dict(dict(rows))
        if isinstance(rows, Sequence) and rows and all(isinstance(row, Mapping) for row in rows):
            return datasets.Dataset.from_list(list(rows))
    except (pa.ArrowException, AttributeError, TypeError) as error:  # columns of different lengths or mixed types
        raise ValueError(f"{name}: not read as a table: {_reason(error)}") from error
    except UnicodeEncodeError as error:
        problem = "half of a character (a surrogate), which no file can hold"
        raise ValueError(f"{name}: the text {error.object!a:.80} has {problem}") from error
    raise ValueError(
        f"{name} is {type(rows).__name__}; give a datasets.Dataset, a frame of pandas or polars, or a list with a "
        "dict for each row"
    )


def _splits_of(dataset: datasets.DatasetDict, name: str) -> dict[str, datasets.Dataset]:
    """The splits of a data set that a run uses. Warnings name splits that are left out or have another name."""
    taken = {split: split for split in SPLITS if split in dataset}
    other = next((split for split in _OTHER_NAMES if split in dataset), None)
    if "validation" not in dataset and other is not None:
        taken["validation"] = other
        logger.warning("--dataset_name %s: its split %r is the validation split", name, other)
    left = [split for split in dataset if split not in taken.values()]
    if left:
        logger.warning("--dataset_name %s: not used: the split(s) %s", name, listed(left))
    return {split: dataset[own] for split, own in taken.items()}


def is_saved(folder: Path) -> bool:
    """Whether `save_to_disk` has written a folder. Otherwise it has files, laid out as a data set of the Hub is."""
    if not folder.is_dir():
        return False
    files = [path for place in (folder, folder / "data") if place.is_dir() for path in place.iterdir()]
    hub = any(path.suffix.lower() in _HUB_FILES for path in files)
    return any((folder / name).is_file() for name in _SAVED) or not hub


def load_saved(folder: str | Path) -> Any:
    """A data set that `save_to_disk` wrote."""
    if not any((Path(folder) / name).is_file() for name in _SAVED):
        raise ValueError(f"{folder}: this is not a folder that save_to_disk wrote")
    try:
        return datasets.load_from_disk(str(folder))
    except Exception as error:  # any error, if the files are damaged
        raise ValueError(f"{folder}: a broken save_to_disk folder: {_reason(error)}") from error


def load_saved_split(folder: str | Path) -> datasets.Dataset:
    """A data set of one split that `save_to_disk` wrote."""
    saved = load_saved(folder)
    if isinstance(saved, datasets.DatasetDict):
        raise ValueError(f"{folder}: several splits are saved here; give the folder as --dataset_name")
    return saved


def load_hub(name: str, config_name: str | None, *, streaming: bool = False) -> Any:
    """The splits of a data set of the Hub, or of a folder that is laid out like one. With `streaming`, streams."""
    try:
        return datasets.load_dataset(name, config_name, streaming=streaming)
    except Exception as error:  # errors of the network, of the Hub, or of a file
        raise ValueError(f"--dataset_name {name}: not loaded: {_reason(error)}") from error


def commit_of(name: str) -> str:
    """The newest commit of a data set of the Hub."""
    try:
        return str(HfApi().dataset_info(name).sha)
    except Exception as error:  # errors of the network or of the Hub
        raise ValueError(f"--dataset_name {name}: its commit is not known: {_reason(error)}") from error


def open_parquet(path: Path) -> pyarrow.parquet.ParquetFile:
    """Opens a Parquet file. Raises ValueError if it is none, or if two columns have the same name."""
    try:
        file = pyarrow.parquet.ParquetFile(path)
        names = file.schema_arrow.names
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:  # the last one: a broken name of a column
        raise ValueError(f"{path}: not a Parquet file: {_reason(error)}") from error
    _check_once(names, str(path))
    return file


def read_columns(
    source: Path | datasets.Dataset,
    names: Sequence[str],
    column_names: str | None,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> tuple[dict[str, list[Any]], list[int]]:
    """The named columns of a table and the line of each row.

    Args:
        column_names: the names of a CSV or TSV file without a header line, with commas between them.
        encoding: of a text file.
        delimiter: what stands between two cells of CSV, whatever the name of the file [a comma; in .tsv a tab]. With
            a tab there is no quoting.
    """
    if isinstance(source, datasets.Dataset):
        return _read_dataset(source, names, "the data set")
    if source.is_dir():
        return _read_dataset(load_saved_split(source), names, str(source))
    suffix = table_form(source, delimiter)
    if suffix == ".parquet":
        file = open_parquet(source)
        _check_columns(names, file.schema_arrow.names, str(source))
        try:
            dataset = datasets.Dataset(file.read(columns=list(names)))
        except Exception as error:  # errors of pyarrow, or of datasets if it does not know the features
            raise ValueError(f"{source}: not read: {_reason(error)}") from error
        return _read_dataset(dataset, names, str(source))
    if suffix in (".jsonl", ".json"):
        return _read_jsonl(source, names, encoding)
    if suffix in (".csv", ".tsv"):
        return _read_delimited(source, names, column_names, encoding, delimiter)
    raise ValueError(f"{source}: unknown form {source.suffix!r}; give {_FORMS}")


def table_form(path: Path, delimiter: str | None) -> str:
    """The ending that says how a file is read. With a delimiter, a file of an unknown ending is a table, too."""
    suffix = path.suffix.lower()
    return ".csv" if delimiter is not None and suffix not in (".parquet", ".jsonl", ".json", ".tsv") else suffix


def names_of(
    source: Path | datasets.Dataset,
    column_names: str | None,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> list[str]:
    """The columns of a table; of a file of JSON, the names in its first row.

    The arguments are as for `read_columns`.
    """
    suffix = table_form(source, delimiter) if isinstance(source, Path) and source.is_file() else ""
    if suffix == ".parquet":
        return list(open_parquet(Path(str(source))).schema_arrow.names)
    if suffix in (".jsonl", ".json"):
        path = Path(str(source))
        first: Any = next(json_file_rows(path, encoding), (0, {}))[1]
        return list(first) if isinstance(first, dict) else []
    if suffix in (".csv", ".tsv"):
        if column_names:
            return [name.strip() for name in column_names.split(",")]
        try:
            return next(filter(None, _delimited(Path(str(source)), encoding, delimiter)), [])
        except csv.Error:
            return []
    if suffix:
        return []
    names: list[str] = (load_saved_split(source) if isinstance(source, Path) else source).column_names
    return names


def has_none_of(
    source: Path | datasets.Dataset,
    names: Sequence[str],
    column_names: str | None,
    *,
    encoding: str = "utf-8",
    delimiter: str | None = None,
) -> bool:
    """Whether a table has none of these columns; of JSON, in no row. The arguments are as for `names_of`."""
    if isinstance(source, Path) and source.is_file() and table_form(source, delimiter) in (".json", ".jsonl"):
        rows = (row for _, row in json_file_rows(source, encoding))
        return not any(isinstance(row, dict) and not row.keys().isdisjoint(names) for row in rows)
    return set(names).isdisjoint(names_of(source, column_names, encoding=encoding, delimiter=delimiter))


def _read_dataset(
    dataset: datasets.Dataset, names: Sequence[str], source: str
) -> tuple[dict[str, list[Any]], list[int]]:
    _check_columns(names, dataset.column_names, source)
    if not len(dataset):
        raise ValueError(f"{source}: no row in this data")
    columns = {}
    for name in names:
        feature = dataset.features[name]
        inner = getattr(feature, "feature", feature)
        try:
            column = dataset.select_columns(name).with_format("arrow")[:][name]
            column.validate(full=True)  # among other things, that text is UTF-8
            values = column.to_pylist()
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{source}: column {name!r} is broken: {_reason(error)}") from error
        if isinstance(inner, datasets.ClassLabel):
            named = {None: None, -1: None} | dict(enumerate(inner.names))
            try:
                if inner is feature:
                    values = [named[value] for value in values]
                else:
                    values = [row and [named[value] for value in row] for row in values]
            except KeyError as error:
                raise ValueError(
                    f"{source}: column {name!r} holds the label number {error}, but has names for "
                    f"{len(inner.names)} labels, from 0 on"
                ) from error
        columns[name] = values
    return columns, [-row for row in range(1, len(dataset) + 1)]


def declared_names(source: Path | datasets.Dataset, column: str) -> list[str]:
    """The names that a data set or a Parquet file declares for a column of labels (`ClassLabel`), or []."""
    if isinstance(source, Path) and source.is_dir():
        features = load_saved_split(source).features
    elif isinstance(source, datasets.Dataset):
        features = source.features
    elif source.suffix.lower() == ".parquet":
        try:
            features = datasets.Features.from_arrow_schema(open_parquet(source).schema_arrow)
        except Exception as error:  # errors of datasets if it does not know the features
            raise ValueError(f"{source}: not read: {_reason(error)}") from error
    else:
        return []
    feature = features.get(column)
    inner = getattr(feature, "feature", feature)
    return list(inner.names) if isinstance(inner, datasets.ClassLabel) else []


def _read_jsonl(path: Path, names: Sequence[str], encoding: str) -> tuple[dict[str, list[Any]], list[int]]:
    columns: dict[str, list[Any]] = {name: [] for name in names}
    lines = []
    for number, row in json_file_rows(path, encoding):
        where = row_at(path, number)
        if not isinstance(row, dict):
            each = "in a .jsonl file each line is" if number > 0 else "each item of the list must be"
            raise ValueError(f"{where}: {each} an object, like {{{names[0]!r}: ...}}")
        _check_columns(names, list(row), where)
        for name in names:
            columns[name].append(row[name])
        lines.append(number)
    if not lines:
        raise ValueError(f"{path}: no row in this file")
    return columns, lines


def _read_delimited(
    path: Path, names: Sequence[str], column_names: str | None, encoding: str, delimiter: str | None
) -> tuple[dict[str, list[Any]], list[int]]:
    """Reads CSV with the quoting of RFC 4180, and TSV without quoting: there a quotation mark is a character."""
    reader = _delimited(path, encoding, delimiter)
    header = [name.strip() for name in column_names.split(",")] if column_names else None
    if header is not None:
        _check_once(header, f"--column_names {column_names}")
        _check_columns(names, header, f"--column_names {column_names}")
    columns: dict[str, list[Any]] = {name: [] for name in names}
    lines: list[int] = []
    end_of_last = 0
    try:
        for cells in reader:
            line, end_of_last = end_of_last + 1, reader.line_num
            if not cells:
                continue
            if header is None:
                header = cells
                _check_once(header, f"{path}:{line}")
                hint = delimiter_hint(header, delimiter) or " (no header line? then give --column_names)"
                _check_columns(names, header, f"{path}:{line}", hint)
                continue
            if cells == header:
                what = "leave out --column_names" if column_names else "the file already has one"
                raise ValueError(f"{path}:{line}: this is a header line; {what}")
            if len(cells) != len(header):
                raise ValueError(f"{path}:{line}: {len(cells)} column(s), but the header has {len(header)}")
            for name in names:
                columns[name].append(cells[header.index(name)])
            lines.append(line)
    except csv.Error as error:
        raise ValueError(f"{path}:{reader.line_num}: not CSV: {error}") from error
    if not lines:
        raise ValueError(f"{path}: no row in this file")
    return columns, lines


def _delimited(path: Path, encoding: str, delimiter: str | None) -> Any:
    csv.field_size_limit(2**31 - 1)
    lines_of_file = read_lines(path, encoding=encoding)
    delimiter = delimiter or ("\t" if path.suffix.lower() == ".tsv" else ",")
    if delimiter == "\t":
        return csv.reader(lines_of_file, delimiter="\t", quoting=csv.QUOTE_NONE)
    # A quoted cell may have line ends in it, which read_lines has removed.
    return csv.reader((line + "\n" for line in lines_of_file), delimiter=delimiter, strict=True)


def _check_once(names: Sequence[str], where: str) -> None:
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"{where}: two columns are named {shown(twice)}")


def _check_columns(names: Sequence[str], present: Sequence[str], where: str, hint: str = "") -> None:
    for name in names:
        if name not in present:
            raise ValueError(
                f"{where}: no column {name!r}; it has: {listed(present)}. "
                "Name the right one with a flag that ends in _column_name"
                f"{hint}"
            )


def check_different(*names: str) -> None:
    """Refuses flags that name the same column for two purposes."""
    if len(set(names)) != len(names):
        flags = "--text_column_name, --text_pair_column_name and --label_column_name"
        raise ValueError(f"{flags} name {', '.join(map(shown, names))}; they must be different columns")


def has_no_label(column: list[Any]) -> bool:
    """Whether all labels of a split are missing, as in the test split of a competition."""
    labels = [label for row in column for label in (row if isinstance(row, list) else [row])]
    return bool(labels) and all(label in (None, -1) for label in labels)


def keep_unlabelled(
    split: str, columns: dict[str, Any], types: dict[str, pa.DataType], config: DataArguments
) -> None:
    """Keeps a test split without labels if it is wanted (`keeping_unlabelled`), and says what becomes of the split.

    Args:
        columns, types: as `as_dataset` takes them, without labels.
    """
    kept = _unlabelled.get()
    if kept is None or split != "test":
        logger.warning("the %s split has no labels; it is left out", split)
        return
    kept[split] = as_dataset(split, columns, types, config)
    logger.warning("the test split has no labels, so it is not scored")


def _reason(error: BaseException) -> str:
    text = str(error).strip().split("\n")[0][:300]
    bare = isinstance(error, (LookupError, TypeError, AttributeError))  # these say little by themselves
    return f"{type(error).__name__}: {text}" if bare or not text else text


def row_at(source: Path | datasets.Dataset, line: int) -> str:
    """The place of a row, for messages."""
    name = source_name(source)
    return f"{name}:{line}" if line > 0 else f"{name}, row {-line}"


def as_dataset(
    split: str, columns: dict[str, Any], types: dict[str, pa.DataType], config: DataArguments
) -> datasets.Dataset:
    """The rows that the config asks for. A list of labels under the key `declared` is kept as `declare` keeps it.

    Args:
        columns: the columns that `types` names, the `source` of all rows, and the `line` of each row. If the rows are
            from several files, `sources` has the file of each.
    """
    source = columns["source"]
    name = str(source) if isinstance(source, Path) else f"{config.dataset_name or 'data'} ({split})"
    arrays = {key: pa.array(columns[key], type=kind) for key, kind in types.items()}
    arrays["source"] = pa.array(columns["sources"]) if "sources" in columns else pa.repeat(name, len(columns["line"]))
    of_words = bool(columns["line"]) and isinstance(columns["line"][0], list)
    arrays["line"] = pa.array(columns["line"], type=pa.list_(pa.int64()) if of_words else pa.int64())
    dataset = datasets.Dataset(pa.table(arrays))
    if columns.get("declared"):
        declare(dataset, columns["declared"])
    flag = "max_train_samples" if split == "train" else "max_eval_samples"
    limit = getattr(config, flag)
    if limit is None or limit >= len(dataset):
        return dataset
    column = "label" if "label" in types else "ner_tags"
    if column in types and not pa.types.is_floating(types[column]):
        tell_of_lost_labels(dataset, name, limit, column, f"--{flag}")
    return dataset.select(range(limit))
