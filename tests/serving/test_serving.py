"""A model behind HTTP: real connections, many at once, and everything that a client can do wrong."""

import asyncio
import contextlib
import http.client
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoConfig, AutoModelForQuestionAnswering

import finetune
from finetune import models
from finetune.arguments import ModelArguments

pytest.importorskip("starlette")
uvicorn = pytest.importorskip("uvicorn")

from finetune.serving import app, server  # noqa: E402
from finetune.serving.batcher import Batcher  # noqa: E402

ROOT = Path(__file__).parents[2]
WORDS = "Ada Lovelace flew to Oslo with Grace Hopper , who had never seen so much snow .".split()  # noqa: SIM905
TEXTS = [" ".join(WORDS[i : i + n]) for i in range(10) for n in (1, 3, 6)] + ["", " ".join(WORDS * 12)]
SHAPE = {"hidden_size": 12, "embedding_size": 10, "char_hidden_size": 6}
LIMITS = app.Limits()
JSON = {"Content-Type": "application/json"}
CLIENTS = 50


def build(kind, folder, checkpoint):
    """A model of random weights, as a run saves it."""
    torch.manual_seed(0)
    told = {}
    if kind == "questions":
        model = AutoModelForQuestionAnswering.from_config(AutoConfig.from_pretrained(checkpoint))
        tokenizer = models.load_tokenizer(str(checkpoint), for_words=False)
    else:
        head, labels = (
            ("token-classification", ["O", "B-PER", "I-PER"])
            if kind == "words"
            else ("sequence-classification", ["a", "b", "c"])
        )
        arguments = ModelArguments(model_name_or_path="gru", **SHAPE)
        model, tokenizer = models.load(head, arguments, labels, words=TEXTS, max_seq_length=32)
        told = {"several": {"problem_type": "multi_label_classification", "threshold": 0.5}}.get(kind, {})
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)  # far from ties
        for module in model.modules():
            if isinstance(module, torch.nn.Embedding) and module.padding_idx is not None:
                module.weight[module.padding_idx] = 0.0
    model.config.update(told)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pair = "text_pair" if kind == "pairs" else None
    (folder / "run.yaml").write_text(f"max_seq_length: 32\ntext_pair_column_name: {json.dumps(pair)}\n")


def inputs_of(kind):
    """Inputs as a client sends them, and as `finetune.predict` takes them."""
    if kind == "words":
        return [*TEXTS, {"tokens": WORDS}], [*TEXTS, WORDS]
    if kind in ("texts", "several"):
        return [*TEXTS, {"text": "Oslo"}], [*TEXTS, "Oslo"]
    names = ("question", "context") if kind == "questions" else ("text", "text_pair")
    pairs = [(text, " ".join(WORDS)) for text in TEXTS]
    return [dict(zip(names, pair, strict=True)) for pair in pairs], pairs


@pytest.fixture(scope="module")
def folders(checkpoints, tmp_path_factory):
    made = {}
    for kind in ("words", "texts", "several", "pairs", "questions"):
        made[kind] = tmp_path_factory.mktemp(kind)
        build(kind, made[kind], checkpoints["wordpiece"])
    return made


@pytest.fixture(scope="module")
def tagger(folders):
    return finetune.load_predictor(folders["words"])


def close(one, other):
    """Whether two answers are equal. Another batch may change the last decimal of a score."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(close(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(close, one, other))
    return abs(one - other) < 3e-6 if isinstance(one, float) else one == other


def ask(port, method, path, body=None, headers=JSON, to=None):
    """The status, the headers and the content of an answer."""
    connection = to or http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, headers)
    answer = connection.getresponse()
    content = json.loads(answer.read())
    if to is None:
        connection.close()
    return answer.status, answer.headers, content


def post(port, inputs, to=None):
    return ask(port, "POST", "/predict", json.dumps({"inputs": inputs}), to=to)


@contextlib.contextmanager
def served(predictor, limits=LIMITS, batch_texts=128):
    """The port of a server in a thread of this process."""
    service = app.application(predictor, "tiny", limits, batch_texts=batch_texts, batch_wait=0.001)
    with server.bound("127.0.0.1", 0) as address:
        running = uvicorn.Server(server.configured(service, limits.seconds))
        thread = threading.Thread(target=running.run, kwargs={"sockets": [address]})
        thread.start()
        try:
            yield address.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()


@contextlib.contextmanager
def started(folder, *flags):
    """The recipe in a process of its own, and its port."""
    process = subprocess.Popen(
        [sys.executable, "recipes/serve.py", "--model_name_or_path", str(folder), "--port", "0", *map(str, flags)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
    )
    try:
        line = process.stdout.readline()
        assert "serves" in line, process.stderr.read()
        yield process, int(line.split()[0].rpartition(":")[2])
    finally:
        process.kill()
        process.communicate()


@contextlib.contextmanager
def blocked(predictor):
    """A predictor whose model waits; an event that lets it go on; and one that says that it has begun."""
    go, begun = threading.Event(), threading.Event()

    def run(rows):
        begun.set()
        assert go.wait(60)
        return predictor.run(rows)

    try:
        yield replace(predictor, run=run), go, begun
    finally:
        go.set()


def until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.01)
    raise AssertionError("this did not become true")


def waiting(port):
    return ask(port, "GET", "/health")[2]["waiting"]


def test_fifty_clients_at_once_lose_no_answer_and_an_end_answers_what_is_there(folders, tagger):
    expected = tagger(TEXTS)

    def client(number):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        wrong = []
        for turn in range(6):
            chosen = [(number * 7 + turn * 11 + i) % len(TEXTS) for i in range(1 + (number + turn) % 4)]
            status, _, content = post(port, [TEXTS[i] for i in chosen], to=connection)
            if status != 200 or not close(content["answers"], [expected[i] for i in chosen]):
                wrong.append((status, content))
        connection.close()
        return wrong

    with started(folders["words"], "--batch_texts", 16) as (process, port):
        with ThreadPoolExecutor(CLIENTS) as clients:
            assert list(clients.map(client, range(CLIENTS))) == [[]] * CLIENTS
        with ThreadPoolExecutor(1) as last:
            answer = last.submit(post, port, TEXTS[-1:] * 256)
            until(lambda: waiting(port))
            process.send_signal(signal.SIGTERM)
            status, _, content = answer.result()
        assert status == 200
        assert close(content["answers"], expected[-1:] * 256)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
        with pytest.raises(ConnectionError):
            waiting(port)


@pytest.mark.parametrize("kind", ["words", "texts", "several", "pairs", "questions"])
def test_answers_are_those_of_predict(kind, folders):
    predictor = finetune.load_predictor(folders[kind])
    given, samples = inputs_of(kind)
    with served(predictor, batch_texts=7) as port:
        status, _, content = post(port, given)
        told = ask(port, "GET", "/")[2]
    assert status == 200
    assert close(content["answers"], predictor(samples))
    form = {"words": "tokens", "pairs": "text_pair", "questions": "question"}.get(kind, "text")
    assert any(form in known for known in told["inputs"])
    assert ("text_pair" in str(told["inputs"])) is (kind == "pairs")
    assert told["labels"] == predictor.labels
    assert told["parameters"] == sum(parameter.numel() for parameter in predictor.model.parameters())


@pytest.mark.parametrize(
    ("body", "status", "sentence"),
    [
        ("[", 400, "the body is not JSON: Expecting value: line 1 column 2 (char 1)"),
        ('["Ada"]', 400, 'the body must be an object with a list of inputs: {"inputs": [...]}'),
        ('{"inputs": ["a", 3]}', 400, "inputs[1]: an input is a text, or one of {\"text\": \"...\"}, {\"tokens\": ["
         '"...", ...]}'),
        ('{"inputs": [{"text": "a", "text_pair": "b"}]}', 422, "inputs[0]: this model labels words: give a text or a "
         "list of words"),
        ('{"inputs": [{"tokens": ["a", ""]}]}', 422, "inputs[0]: the word '' is empty or breaks a line"),
        ('{"inputs": ["\\ud800"]}', 400, "the body is not JSON: 'utf-8' codec can't encode character '\\ud800' in "
         "position 13: surrogates not allowed"),
        ('{"inputs": ["a", "a", "a", "a"]}', 413, "4 inputs; a request may have 3; send several requests"),
        ('{"inputs": ["aaaaaaaaaaa"]}', 413, "inputs[0]: 11 characters; an input may have 10"),
        ('{"inputs": [{"tokens": ["aaaaaa", "aaaaa"]}]}', 413, "inputs[0]: 11 characters; an input may have 10"),
        (" " * 301, 413, "the body has more than 300 bytes; send fewer or shorter inputs in a request"),
        (" " * 200_000, 413, "the body has more than 300 bytes; send fewer or shorter inputs in a request"),
    ],
)  # fmt: skip
def test_what_is_refused(body, status, sentence, limited):
    assert (status, {"error": sentence}) == ask(limited, "POST", "/predict", body)[::2]


@pytest.mark.parametrize(
    ("method", "path", "headers", "status", "sentence"),
    [
        ("POST", "/predict", {}, 415, "the header Content-Type must be application/json"),
        ("GET", "/predict", JSON, 405, "/predict takes another method; /predict takes POST, the others GET"),
        ("GET", "/../run.yaml", JSON, 404, "no such path; there are /predict, /health and /info"),
    ],
)
def test_other_paths_methods_and_types_are_refused(method, path, headers, status, sentence, limited):
    assert (status, {"error": sentence}) == ask(limited, method, path, '{"inputs": []}', headers)[::2]


@pytest.fixture(scope="module")
def limited(tagger):
    with served(tagger, app.Limits(body_bytes=300, texts=3, characters=10)) as port:
        yield port
        assert post(port, ["a", "", "b"])[0] == 200  # it goes on after all this


def test_a_full_queue_refuses_and_says_when_to_come_back(tagger):
    limits = app.Limits(queue=3, texts=3)
    with blocked(tagger) as (model, go, begun), served(model, limits) as port, ThreadPoolExecutor(2) as clients:
        first = clients.submit(post, port, ["Ada"])
        assert begun.wait(60)
        second = clients.submit(post, port, ["Ada", "flew"])
        until(lambda: waiting(port) == 2)
        status, headers, content = post(port, ["to", "Oslo"])
        assert (status, content) == (503, {"error": "2 texts wait already; try again in 1 s"})
        assert headers["Retry-After"] == "1"
        go.set()
        assert [answer.result()[0] for answer in (first, second)] == [200, 200]


def test_too_many_open_requests_are_refused_with_their_number(tagger):
    limits = app.Limits(queue=2, texts=1)
    with blocked(tagger) as (model, go, begun), served(model, limits) as port, ThreadPoolExecutor(2) as clients:
        first = clients.submit(post, port, ["Ada"])  # the model has it, so one text waits, and two requests are open
        assert begun.wait(60)
        second = clients.submit(post, port, ["flew"])
        until(lambda: waiting(port) == 1)
        status, _, content = post(port, ["Oslo"])
        assert (status, content) == (503, {"error": "2 requests are open already; try again in 1 s"})
        go.set()
        assert [answer.result()[0] for answer in (first, second)] == [200, 200]


def test_a_request_that_takes_too_long_is_given_up(tagger):
    limits = app.Limits(seconds=0.3)
    with blocked(tagger) as (model, go, begun), served(model, limits) as port, ThreadPoolExecutor(1) as client:
        first = client.submit(post, port, ["Ada"])
        assert begun.wait(60)
        for status, _, content in (post(port, ["flew"]), first.result()):
            assert status == 504
            assert content == {"error": "no answer within 0.3 seconds; send fewer or shorter inputs"}
        assert waiting(port) == 0  # nobody works for a client that has its answer
        go.set()
        until(lambda: post(port, ["Oslo"])[0] == 200)


def test_a_body_that_comes_too_slowly_is_given_up(tagger):
    head = b"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
    with served(tagger, app.Limits(seconds=0.2)) as port, socket.create_connection(("127.0.0.1", port), 60) as slow:
        slow.sendall(head)
        answer = b"".join(iter(lambda: slow.recv(4096), b""))
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert answer.endswith(b'{"error":"the body did not arrive within 0.2 seconds"}')


def test_a_body_that_is_too_large_is_read_on_but_not_for_ever(tagger):
    """A client that writes its whole body before it reads gets the answer. One that never ends gets it, too."""

    def head(size):
        return (
            f"POST /predict HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n\r\n"
        )

    limits, answered = app.Limits(body_bytes=300), b'"the body has more than 300 bytes; send fewer or shorter inputs'
    with served(tagger, limits) as port:
        with socket.create_connection(("127.0.0.1", port), 60) as patient:
            patient.sendall(head(9000).encode() + b" " * 600)
            assert select.select([patient], [], [], 0.5)[0] == [], "an answer now would be lost with the connection"
            for _ in range(14):
                patient.sendall(b" " * 600)
            answer = b"".join(iter(lambda: patient.recv(4096), b""))
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert answered in answer
        with socket.create_connection(("127.0.0.1", port), 60) as endless:
            endless.sendall(head(10**9).encode() + b" " * (300 * 32 + 1))
            assert endless.recv(4096).startswith(b"HTTP/1.1 413 ")


def test_the_texts_of_a_client_that_left_are_not_labelled(tagger):
    with blocked(tagger) as (model, go, begun), served(model) as port, ThreadPoolExecutor(1) as client:
        first = client.submit(post, port, ["Ada"])
        assert begun.wait(60)
        leaving = http.client.HTTPConnection("127.0.0.1", port)
        leaving.request("POST", "/predict", json.dumps({"inputs": TEXTS}), JSON)
        until(lambda: waiting(port) == len(TEXTS))
        leaving.close()
        until(lambda: waiting(port) == 0)
        go.set()
        assert first.result()[0] == 200


def test_a_model_that_fails_on_one_request_answers_the_others(tagger, caplog):
    def run(rows):
        if len(rows) > 1 or rows.tokens["input_ids"].size > 20:
            raise RuntimeError("no memory")
        return tagger.run(rows)

    with served(replace(tagger, run=run), batch_texts=2) as port, ThreadPoolExecutor(2) as clients:
        found = sorted(answer[0] for answer in clients.map(lambda text: post(port, [text]), [TEXTS[0], TEXTS[-1]]))
    assert found == [200, 500]
    assert "no memory" in caplog.text


def batches_of(requests, texts, first_alone):
    """The calls of the model for requests that come while it works, and the answers to each request."""
    calls = []

    async def main():
        go = threading.Event()

        def answer(samples):
            calls.append(list(samples))
            assert go.wait(60)
            return [str(sample) for sample in samples]

        batcher = Batcher(answer, texts, 0.0, 10_000)
        worker = asyncio.create_task(batcher.work())
        asked = [batcher.add(requests[0])] if first_alone else []
        while first_alone and not calls:
            await asyncio.sleep(0.001)
        asked += [batcher.add(request) for request in requests[len(asked) :]]
        go.set()
        found = await asyncio.gather(*(one.done for one in asked))
        worker.cancel()
        assert batcher.waiting == 0
        return found

    return calls, asyncio.run(main())


def test_what_comes_while_the_model_works_shares_the_next_call():
    calls, _ = batches_of([["a"], ["b1", "b2", "b3", "b4"], ["c1"], ["d1", "d2"]], 5, first_alone=True)
    assert calls == [["a"], ["b1", "c1", "d1", "b2", "d2"], ["b3", "b4"]]


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(), max_size=5), max_size=8), st.integers(1, 6))
def test_every_request_gets_its_own_answers_in_order(requests, texts):
    calls, found = batches_of(requests, texts, first_alone=False)
    assert found == [[str(sample) for sample in request] for request in requests]
    assert all(len(call) <= texts for call in calls)
    assert sorted(itertools.chain(*calls)) == sorted(itertools.chain(*requests))
