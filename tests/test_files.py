"""Files appear whole or not at all, where they were asked for."""

import errno

import pytest

from finetune import data, files, reporting


def test_what_fails_halfway_leaves_what_was_there(tmp_path):
    path = tmp_path / "predictions.conll"
    path.write_text("before")

    def tags():
        yield ["O"]
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match=r"predictions\.conll") as failed:
        data.write_conll(path, [["a"], ["b"]], tags())
    assert failed.value.errno == errno.ENOSPC
    assert path.read_text() == "before"
    assert [file.name for file in tmp_path.iterdir()] == ["predictions.conll"]


@pytest.mark.parametrize("name", ["a.tsv", ".a.tsv.writing"])
def test_a_link_is_replaced_and_never_followed(tmp_path, name):
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / name).symlink_to(tmp_path / "mine")
    reporting.write_predictions(tmp_path / "run/a.tsv", ["text"], [["good"]])
    assert (tmp_path / "mine").read_text() == "mine"
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["a.tsv"]
    assert (tmp_path / "run/a.tsv").read_text() == "text\ngood\n"
    assert not (tmp_path / "run/a.tsv").is_symlink()


def test_cells_come_back_as_they_were(tmp_path):
    """Also those that a spreadsheet would take for formulas, and quotes: a comparison reads the labels again."""
    cells = ["=1+1", "-1", "+1", "@x", '"quoted"', "'", "a,b;c", "\\", "#", "é\u200c"]
    reporting.write_predictions(
        tmp_path / "a.tsv", ["label"] * len(cells), [cells, ["a\tb \n\r c\u2028d"] * len(cells)]
    )
    lines = (tmp_path / "a.tsv").read_text(encoding="utf-8").split("\n")
    assert [line.split("\t") for line in lines[1:]] == [cells, ["a b c d"] * len(cells), [""]]


def test_of_a_link_the_link_alone_is_removed(tmp_path):
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept/file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "kept")
    (tmp_path / "folder/inner").mkdir(parents=True)
    for name in ("link", "folder", "nothing"):
        files.remove(tmp_path / name)
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "kept"]
