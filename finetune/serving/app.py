"""The service: what it is asked by HTTP, what it answers, and what it refuses.

| request | answer |
|---|---|
| `POST /predict` with `{"inputs": [...]}` | `{"answers": [...]}`: one answer for each input, in the same order |
| `GET /health` | `{"status": "ok", "waiting": N}`, with the number of texts that wait |
| `GET /info`, `GET /` | what the model is, which inputs it takes, and the limits |

An input is a text, or an object as in a line of JSON that `recipes/predict.py` reads. An error is `{"error": "..."}`,
one sentence:

| status | meaning |
|---|---|
| 400 | the body is not such JSON |
| 404, 405 | there is no such path, or it takes another method |
| 408 | the body did not arrive in time |
| 413 | the body, the number of inputs or an input is too large |
| 415 | the body has another type than `application/json` |
| 422 | the model cannot label this input |
| 500 | the model failed |
| 503 | too many texts or requests wait; `Retry-After` says for how many seconds to wait |
| 504 | the answers were not ready in time |
"""

from __future__ import annotations  # the types of the fields are read as texts

import asyncio
import contextlib
import json
import logging
import math
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from finetune import __version__, data
from finetune.serving.batcher import Asked, Batcher

logger = logging.getLogger(__name__)

# A larger body is read up to so many times the largest size: a client that still writes may not read the answer.
_READ_ON = 32
_FORMS: dict[str, Any] = {
    '{"text": "..."}': "a",
    '{"tokens": ["...", ...]}': ["a"],
    '{"text": "...", "text_pair": "..."}': ("a", "b"),
    '{"question": "...", "context": "..."}': ("a", "b"),
}


@dataclass(frozen=True)
class Limits:
    """What a request may ask for, and how much may wait."""

    body_bytes: int = 1_000_000
    texts: int = 256  # of a request
    characters: int = 100_000  # of an input
    seconds: float = 30.0  # from the first byte of the body to the answer
    queue: int = 1024  # texts that wait; also requests that are read or answered at once


def application(predictor: Any, name: str, limits: Limits, *, batch_texts: int, batch_wait: float) -> Starlette:
    """The service.

    Args:
        predictor: `finetune.load_predictor(...)`.
        name: how the service calls the model.
        batch_texts: the largest number of texts in one call of the model.
        batch_wait: seconds that a text waits for others while the model is idle.
    """
    batcher = Batcher(predictor, batch_texts, batch_wait, limits.queue)
    service = _Service(predictor, batcher, limits)
    told = described(predictor, name) | {"limits": asdict(limits)}

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        worker = asyncio.create_task(batcher.work())
        yield
        worker.cancel()

    async def info(request: Request) -> Response:
        return JSONResponse(told)

    return Starlette(
        routes=[
            Route("/", info),
            Route("/info", info),
            Route("/health", service.health),
            Route("/predict", service.predict, methods=["POST"]),
        ],
        exception_handlers={HTTPException: _error, Exception: _failed},  # type: ignore[dict-item]
        lifespan=lifespan,
    )


def described(predictor: Any, name: str) -> dict[str, Any]:
    """What the model is: its task, its labels, how it cuts its inputs, and the inputs that it takes."""
    model, task = predictor.model, predictor.task
    exported = getattr(model, "described", None)
    told = {
        "model": name,
        "task": task.PIPELINE,
        "labels": predictor.labels,
        "model_type": exported.model_type if exported else model.config.model_type,
        "runtime": "onnx" if exported else "torch",
        "precision": exported.precision if exported else getattr(model.config, "mixed_precision", "float32"),
        "max_seq_length": predictor.max_seq_length,
        "inputs": accepted(predictor),
        "finetune": __version__,
    }
    if not exported:
        told["parameters"] = sum(parameter.numel() for parameter in model.parameters())
    return told


def accepted(predictor: Any) -> list[str]:
    """The forms of an input that this model labels."""
    questions = predictor.task.PIPELINE == "question-answering"
    found = []
    for form, sample in _FORMS.items():
        if isinstance(sample, tuple) and ("question" in form) is not questions:
            continue
        with contextlib.suppress(ValueError):
            predictor.check(sample)
            found.append(form)
    return found


@dataclass
class _Service:
    predictor: Any
    batcher: Batcher
    limits: Limits
    open: int = 0  # requests that are read or answered

    async def health(self, request: Request) -> Response:
        return JSONResponse({"status": "ok", "waiting": self.batcher.waiting})

    async def predict(self, request: Request) -> Response:
        if self.open >= self.limits.queue:
            raise self.busy(f"{self.open:,} requests are open")
        self.open += 1
        ends = asyncio.get_running_loop().time() + self.limits.seconds
        try:
            samples = self.samples(await self.body(request, ends))
            try:
                asked = self.batcher.add(samples)
            except asyncio.QueueFull:
                raise self.busy(f"{self.batcher.waiting:,} texts wait") from None
            try:
                return await self.answers(request, asked, ends)
            finally:
                self.batcher.drop(asked)
        except ClientDisconnect:
            return Response()  # nobody reads it
        finally:
            self.open -= 1

    async def body(self, request: Request, ends: float) -> bytes:
        """The body, if it is of the right type, small enough, and arrives in time."""
        most, size = self.limits.body_bytes, 0
        parts: list[bytes] = []
        told = f"the body has more than {most:,} bytes; send fewer or shorter inputs in a request"
        too_large = HTTPException(413, told, {"Connection": "close"})
        length = request.headers.get("content-length", "")
        asks_first = request.headers.get("expect", "").lower() == "100-continue"
        if asks_first and length.isdecimal() and int(length[:20]) > most:
            raise too_large
        try:
            async with asyncio.timeout_at(ends):
                async for part in request.stream():
                    size += len(part)
                    if size <= most:
                        parts.append(part)
                    elif size > _READ_ON * most:
                        break
        except TimeoutError:
            told = f"the body did not arrive within {self.limits.seconds:g} seconds"
            raise HTTPException(408, told, {"Connection": "close"}) from None
        if size > most:
            raise too_large
        # A page in a browser can send other types to this service without asking it first.
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
            raise HTTPException(415, "the header Content-Type must be application/json")
        return b"".join(parts)

    def samples(self, body: bytes) -> list[Any]:
        """The inputs of a body, each of which the model can label."""
        try:
            told = json.loads(body)
            json.dumps(told, ensure_ascii=False).encode("utf-8")  # refuses half of a surrogate pair, which is no text
        except (ValueError, RecursionError) as error:
            raise HTTPException(400, f"the body is not JSON: {' '.join(str(error).split())[:200]}") from error
        inputs = told.get("inputs") if isinstance(told, dict) else None
        if not isinstance(inputs, list):
            raise HTTPException(400, 'the body must be an object with a list of inputs: {"inputs": [...]}')
        if len(inputs) > self.limits.texts:
            told = f"{len(inputs):,} inputs; a request may have {self.limits.texts:,}; send several requests"
            raise HTTPException(413, told)
        return [self.sample(item, f"inputs[{i}]") for i, item in enumerate(inputs)]

    def sample(self, item: Any, where: str) -> Any:
        """One input as `finetune.prediction` takes it."""
        sample = item if isinstance(item, str) else data.sample_of(item)
        if sample is None:
            raise HTTPException(400, f"{where}: an input is a text, or one of {', '.join(accepted(self.predictor))}")
        size = len(sample) if isinstance(sample, str) else sum(len(text) for text in sample if isinstance(text, str))
        if size > self.limits.characters:
            told = f"{where}: {size:,} characters; an input may have {self.limits.characters:,}"
            raise HTTPException(413, told)
        try:
            self.predictor.check(sample)
        except ValueError as error:
            raise HTTPException(422, f"{where}: {error}") from error
        return sample

    async def answers(self, request: Request, asked: Asked, ends: float) -> Response:
        """Waits for the answers, as long as the client does, and no longer than the limit."""
        left = asyncio.create_task(_gone(request))
        try:
            remaining = ends - asyncio.get_running_loop().time()
            either: set[asyncio.Future[Any]] = {asked.done, left}
            done, _ = await asyncio.wait(either, timeout=remaining, return_when=asyncio.FIRST_COMPLETED)
        finally:
            left.cancel()
        if asked.done in done:
            try:
                return JSONResponse({"answers": asked.done.result()})
            except Exception as error:
                logger.error("the model failed", exc_info=error)
                raise HTTPException(500, "the model failed; the service's log says how") from error
        if left in done:
            raise ClientDisconnect
        raise HTTPException(504, f"no answer within {self.limits.seconds:g} seconds; send fewer or shorter inputs")

    def busy(self, what: str) -> HTTPException:
        """The refusal of a request for which there is no room now."""
        seconds = max(1, math.ceil(self.batcher.seconds_left()))
        told = f"{what} already; try again in {seconds} s"
        return HTTPException(503, told, {"Retry-After": str(seconds), "Connection": "close"})


async def _gone(request: Request) -> None:
    """Returns when the client has closed the connection."""
    while (await request.receive())["type"] != "http.disconnect":
        continue


async def _error(request: Request, error: HTTPException) -> Response:
    known: Mapping[int, str] = {404: "no such path; there are /predict, /health and /info"}
    known = {**known, 405: f"{request.url.path} takes another method; /predict takes POST, the others GET"}
    told = known.get(error.status_code, error.detail)
    return JSONResponse({"error": told}, error.status_code, headers=error.headers)


async def _failed(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": "the service failed; its log says how"}, 500)
