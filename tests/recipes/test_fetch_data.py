"""Fetching public data from a server on this machine: checksums, archives, cut downloads, and what is refused."""

import gzip
import hashlib
import io
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from finetune.arguments import DataArguments
from finetune.data import read_labelled, read_questions, read_tagged
from recipes import fetch_data
from recipes.fetch_data import FetchConfig, fetch
from recipes.public_data import DATA_SETS, DataSet, Wanted


class _Answers(BaseHTTPRequestHandler):
    def do_GET(self):
        self.server.asked.append((self.path, self.headers.get("Range")))
        content = self.server.files.get(self.path)
        if content is None or isinstance(content, str):
            self.send_response(302 if content else 404)
            if content:
                self.send_header("Location", content)
            self.end_headers()
            return
        begin = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if begin >= len(content):
            self.send_response(416)
            self.end_headers()
            return
        self.send_response(206 if begin else 200)
        self.send_header("Content-Length", str(len(content) - begin))
        self.end_headers()
        self.wfile.write(content[begin : self.server.cut or None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Answers)
    server.files, server.asked, server.cut = {}, [], None
    server.address = f"http://127.0.0.1:{server.server_port}"
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def sha(content):
    return hashlib.sha256(content).hexdigest()


def zipped(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return packed.getvalue()


ROWS = b"Ada\tB-person\nlives\tO\n\n" * 500


@pytest.fixture
def toy(monkeypatch, server):
    """A data set of this test: a plain file, a gzipped one, a zip with a file and a folder."""
    folder = {"1.txt": b"Ada\n", "1.ann": "T1\tPER 0 3\tÀda\n".encode()}
    inside = {"x-main/conll/a.tsv": ROWS, "x-main/../../evil.txt": b"evil", "x-main/sub/folder/deep.txt": b"no"}
    server.files = {
        "/host.example/a.conll": ROWS,
        "/host.example/b.gz": gzip.compress(ROWS),
        "/host.example/x.zip": zipped(inside | {f"x-main/standoff/{name}": text for name, text in folder.items()}),
    }
    lines = "".join(f"{sha(folder[name])}  {name}\n" for name in sorted(folder))
    files = (
        Wanted("toy/a.conll", "https://host.example/a.conll", sha(ROWS)),
        Wanted("toy/b.conll", "https://host.example/b.gz", sha(ROWS)),
        Wanted("toy/c.tsv", "https://host.example/x.zip", sha(ROWS), "*/conll/a.tsv"),
        Wanted("toy/brat", "https://host.example/x.zip", sha(lines.encode()), "*/standoff", folder=True),
    )
    monkeypatch.setitem(DATA_SETS, "toy", DataSet("https://host.example", "CC0", files))
    return server


def tree(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_files_archives_and_folders(toy, tmp_path):
    config = FetchConfig("toy", str(tmp_path / "data"), toy.address)
    assert len(fetch(config)) == 4
    whole = tree(tmp_path)
    assert whole.keys() == {
        f"data/toy/{name}" for name in ("a.conll", "b.conll", "c.tsv", "brat/1.txt", "brat/1.ann")
    }
    assert whole["data/toy/b.conll"] == whole["data/toy/c.tsv"] == ROWS
    assert len(toy.asked) == 3, "the archive is fetched once"
    fetch(config)
    assert len(toy.asked) == 3, "what is there is not fetched again"
    assert tree(tmp_path) == whole


def test_a_cut_download_goes_on(toy, tmp_path):
    config = FetchConfig("toy", str(tmp_path), toy.address)
    toy.cut = 4000
    with pytest.raises(ValueError, match="run it again to go on"):
        fetch(config)
    assert not (tmp_path / "toy").exists()
    toy.cut = None
    fetch(config)
    assert toy.asked[1] == ("/host.example/a.conll", "bytes=4000-")
    assert (tmp_path / "toy/a.conll").read_bytes() == ROWS
    assert not list(tmp_path.glob(".*"))


def test_a_beginning_of_another_file_is_fetched_again(toy, tmp_path):
    part = fetch_data.partial(DATA_SETS["toy"].files[0], tmp_path)
    part.write_bytes(b"something else")
    fetch(FetchConfig("toy", str(tmp_path), toy.address))
    assert (tmp_path / "toy/a.conll").read_bytes() == ROWS
    assert [asked for _, asked in toy.asked[:2]] == ["bytes=14-", None]


@pytest.mark.parametrize("name", ["a.conll", "b.gz", "x.zip"])
@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_wrong_bytes_never_appear(toy, tmp_path, name, damage):
    path = f"/host.example/{name}"
    good = toy.files.pop(path)
    if damage != "gone":
        changed = gzip.compress(ROWS[1:]) if name == "b.gz" else zipped({}) if name == "x.zip" else ROWS[1:]
        toy.files[path] = changed if damage == "changed" else good[:-40]
    with pytest.raises(ValueError, match=r"https?://.*" + ("404" if damage == "gone" else "expected|unpacked")):
        fetch(FetchConfig("toy", str(tmp_path), toy.address))
    there = {path.name for path in (tmp_path / "toy").rglob("*")} if (tmp_path / "toy").exists() else set()
    assert there <= {"a.conll", "b.conll"} - {"a.conll" if name == "a.conll" else "b.conll" if name == "b.gz" else ""}


def test_a_file_of_yours_stays(toy, tmp_path):
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/a.conll").write_text("mine\tO\n")
    with pytest.raises(ValueError, match=r"toy/a.conll: it is there, but with other bytes"):
        fetch(FetchConfig("toy", str(tmp_path), toy.address))
    assert (tmp_path / "toy/a.conll").read_text() == "mine\tO\n"
    assert toy.asked == []


@pytest.mark.parametrize("address", ["http://host.example/x", "file:///etc/passwd", "ftp://host.example/x"])
def test_addresses_that_are_not_safe(toy, tmp_path, address):
    with pytest.raises(ValueError, match="is not https"):
        fetch(FetchConfig("toy", str(tmp_path), address))
    toy.files["/host.example/a.conll"] = address  # a redirection; urllib itself refuses one to file:
    with pytest.raises(ValueError, match=r"is not https|302"):
        fetch(FetchConfig("toy", str(tmp_path), toy.address))
    assert tree(tmp_path) == {}


def test_names():
    assert fetch_data.parse(["wnut17", "sick", "--data_dir=x"]) == FetchConfig("wnut17,sick", "x")
    with pytest.raises(ValueError, match=r"unknown data set 'wnut'; did you mean wnut17\?"):
        fetch(FetchConfig("wnut"))
    with pytest.raises(ValueError, match="--data_sets is missing"):
        fetch(FetchConfig())


def test_every_address_is_https_and_every_config_finds_its_data():
    for data_set in DATA_SETS.values():
        for wanted in data_set.files:
            fetch_data.check_address(wanted.url, wanted.path)
            assert len(wanted.sha256) == 64
    paths = [wanted.path for data_set in DATA_SETS.values() for wanted in data_set.files]
    assert len(set(paths)) == len(paths)


def published(shared, server):
    """Serves the real data in the forms of its publishers."""
    renamed = {"sick/train.tsv": "SICK_train", "sick/dev.tsv": "SICK_trial", "sick/test.tsv": "SICK_test_annotated"}
    ncbi = {}
    for data_set in DATA_SETS.values():
        for wanted in data_set.files:
            at = "/" + wanted.url.removeprefix("https://")
            path = shared / "data" / wanted.path
            if wanted.path in renamed:
                path = shared / f"data/sick/{renamed[wanted.path]}.txt"
                server.files[at] = zipped({f"{renamed[wanted.path]}.txt": path.read_bytes(), "readme.txt": b"-"})
            elif wanted.member:
                inside = wanted.member.replace("*", "ncbi-disease-master")
                found = path.iterdir() if wanted.folder else [path]
                ncbi |= {f"{inside}/{file.name}" if wanted.folder else inside: file.read_bytes() for file in found}
            else:
                server.files[at] = gzip.compress(path.read_bytes()) if at.endswith(".gz") else path.read_bytes()
    server.files["/github.com/spyysalo/ncbi-disease/archive/refs/heads/master.zip"] = zipped(ncbi)


@pytest.mark.slow
def test_the_checksums_are_those_of_the_real_files_and_the_readers_read_them(shared, server, tmp_path):
    published(shared, server)
    fetch(FetchConfig("all", str(tmp_path), server.address))
    for name in ("wnut17", "multi30k", "goemotions", "xquad", "ncbi_disease", "masakhaner"):
        expected = tree(shared / "data" / name)
        assert all(expected[file] == content for file, content in tree(tmp_path / name).items())
    assert sum(1 for _ in (tmp_path / "ncbi_disease/brat/train").glob("*.ann")) == 593
    conll = {f"{split}_file": str(tmp_path / f"wnut17/{split}.conll") for split in ("train", "test")}
    assert [len(rows) for rows in read_tagged(DataArguments(**conll)).values()] == [3394, 1287]
    sst2 = DataArguments(train_file=str(tmp_path / "sst2/train.tsv"), column_names="text,label")
    assert len(read_labelled(sst2)["train"]) == 6920
    english = {f"{split}_file": str(tmp_path / f"xquad_split/en.{split}.json") for split in ("train", "test")}
    assert [len(rows) for rows in read_questions(DataArguments(**english)).values()] == [829, 221]
