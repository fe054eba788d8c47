"""Many clients at once ask a model for a while: are all answers right, and how long do they take?

python benchmarks/serve.py --model runs/ner --data data/wnut17/test.conll --clients 50 --seconds 60
python benchmarks/serve.py --model runs/ner-onnx --runtime onnx --data ... --clients 50 --seconds 60
python benchmarks/serve.py --model runs/sentiment --data reviews.txt --flags "--batch_texts 64"

The script starts `recipes/serve.py` in a process of its own. Each client sends a request, waits for the answer, and
sends the next one, on one connection. The clients share the processor with the model.
"""

import argparse
import http.client
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

import finetune
from finetune import data

ROOT = Path(__file__).parents[1]
TOLERANCE = 1e-5  # of a score: another batch may change its last decimal


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--runtime", default="torch", choices=["torch", "onnx"])
    parser.add_argument("--data", required=True, help="a column file (.conll), or a file with a text on each line")
    parser.add_argument("--texts", type=int, default=1000, help="how many texts of the file to use")
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--texts_a_request", type=int, default=1)
    parser.add_argument("--flags", default="", help="more flags of recipes/serve.py")
    arguments = parser.parse_args()

    texts = texts_of(Path(arguments.data))[: arguments.texts]
    flags = ["--model_name_or_path", arguments.model, "--runtime", arguments.runtime]
    expected = finetune.load_predictor(arguments.model, runtime=arguments.runtime)(texts)
    command = [sys.executable, str(ROOT / "recipes/serve.py"), *flags, "--port", "0", *shlex.split(arguments.flags)]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as service:
        assert service.stdout is not None
        line = service.stdout.readline()
        if not line:
            raise SystemExit("the service did not start")
        port = int(line.split()[0].rpartition(":")[2])
        began = time.perf_counter()
        with ThreadPoolExecutor(arguments.clients) as clients:
            work = [(port, i, texts, expected, arguments, began) for i in range(arguments.clients)]
            found = [one for own in clients.map(client, work) for one in own]
        seconds = time.perf_counter() - began
        service.send_signal(signal.SIGTERM)
    report(found, seconds, arguments, service.returncode)


def texts_of(file: Path) -> list[str]:
    """The sentences of a column file, or the lines of a text file."""
    if file.suffix == ".conll":
        return [" ".join(words) for words in data.read_conll(file).words]
    return file.read_text(encoding="utf-8").splitlines()


def client(work: Any) -> list[tuple[float, int, bool]]:
    """Of each request of one client: its seconds, its status (0: no answer), and whether the answers are right."""
    port, number, texts, expected, arguments, began = work
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    found, at = [], number * 37
    while time.perf_counter() - began < arguments.seconds:
        chosen = [(at + i) % len(texts) for i in range(arguments.texts_a_request)]
        at += arguments.texts_a_request
        body = json.dumps({"inputs": [texts[i] for i in chosen]})
        sent = time.perf_counter()
        try:
            connection.request("POST", "/predict", body, {"Content-Type": "application/json"})
            answer = connection.getresponse()
            content = json.loads(answer.read())
            status = answer.status
        except (OSError, http.client.HTTPException, ValueError):
            connection.close()
            content, status = {}, 0
        seconds = time.perf_counter() - sent
        right = status == 200 and same(content["answers"], [expected[i] for i in chosen])
        found.append((seconds, status, right))
    connection.close()
    return found


def same(one: Any, other: Any) -> bool:
    """Whether two answers are equal, scores up to `TOLERANCE`."""
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return abs(one - other) <= TOLERANCE if isinstance(one, float) else bool(one == other)


def report(found: list[tuple[float, int, bool]], seconds: float, arguments: Any, status: int) -> None:
    """Prints the numbers."""
    times = np.array([one[0] for one in found])
    errors = [one for one in found if one[1] != 200]
    wrong = sum(1 for one in found if one[1] == 200 and not one[2])
    print(f"clients    {arguments.clients}, {arguments.texts_a_request} text(s) a request, for {seconds:.1f} s")
    print(f"requests   {len(found):,}, {len(found) / seconds:,.1f} a second")
    print(f"errors     {len(errors):,} {sorted({one[1] for one in errors}) or ''}")
    print(f"p50, p99   {np.quantile(times, 0.5) * 1000:,.0f} ms, {np.quantile(times, 0.99) * 1000:,.0f} ms")
    print(f"answers    {'all equal those of predict' if not wrong and not errors else f'{wrong:,} differ'}")
    print(f"the service ended with status {status}")


if __name__ == "__main__":
    main()
