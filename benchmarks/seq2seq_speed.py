"""Text to text: training and decoding against the loops of tutorials, in one process, in turns.

    python benchmarks/seq2seq_speed.py --source_file train.en --target_file train.de
    python benchmarks/seq2seq_speed.py --trained runs/lstm runs/transformer            decodes with these

Training: the stock side is plain PyTorch as tutorials write it: batches of any rows, padded, the attention a step
at a time, the output layer at every place, `torch.optim.Adam`, float32. Ours is the step of recipes/seq2seq.py on
the same rows with --train_sampling_strategy group_by_length. Both have the same sizes, and share no embeddings.
Unit: tokens of source and target a second, without padding.

Decoding: the stock side is a tutorial's greedy loop, one sentence at a time; the Transformer reads all words so far
in each step. Ours is `generate` in batches sorted by length. Both have the same weights, and the outputs are
compared.

Without files, the sample pairs. A figure is the median of the repetitions, with the range of the ratio. --cpu_time
counts the processor's time, for a machine with other work. Weights are random, unless --trained names finished
runs.
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from sides import recipe_steps
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, pad

from finetune import data, models
from finetune.arguments import ModelArguments
from finetune.training.run import cpu_has_bf16
from recipes.seq2seq import Seq2SeqConfig

SIZES = {"hidden_size": 256, "share_embeddings": False}
MOST = 40  # tokens of an output


class TutorialLstm(nn.Module):
    """An LSTM encoder-decoder with additive attention, one step of the decoder at a time."""

    def __init__(self, V: int, H: int) -> None:
        super().__init__()
        self.source, self.target, self.dropout = nn.Embedding(V, H), nn.Embedding(V, H), nn.Dropout(0.3)
        self.encoder = nn.LSTM(H, H // 2, batch_first=True, bidirectional=True)
        self.query, self.key, self.energy = nn.Linear(H, H), nn.Linear(H, H), nn.Linear(H, 1)
        self.decoder = nn.LSTM(2 * H, H, batch_first=True)
        self.output = nn.Linear(H, V)

    def forward(self, source: Tensor, target: Tensor, padding: int) -> Tensor:
        memory, states = self.encoder(self.dropout(self.source(source)))
        state = tuple(torch.cat([part[0], part[1]], 1)[None] for part in states)
        steps = []
        for t in range(target.shape[1]):
            energy = self.energy(torch.tanh(self.query(state[0][0])[:, None] + self.key(memory)))[..., 0]
            weights = energy.masked_fill(source == padding, -1e10).softmax(1)
            context = weights[:, None] @ memory
            words = self.dropout(self.target(target[:, t : t + 1]))
            hidden, state = self.decoder(torch.cat([words, context], 2), state)
            steps.append(self.output(hidden))
        return torch.cat(steps, 1)


class TutorialTransformer(nn.Module):
    """`nn.Transformer` with embeddings, sinusoids and an output layer."""

    def __init__(self, V: int, H: int) -> None:
        super().__init__()
        self.source, self.target, self.dropout = nn.Embedding(V, H), nn.Embedding(V, H), nn.Dropout(0.1)
        self.transformer = nn.Transformer(H, 4, 3, 3, 4 * H, 0.1, batch_first=True)
        self.output = nn.Linear(H, V)
        angles = torch.arange(512)[:, None] * torch.exp(torch.arange(0, H, 2) * (-math.log(10_000) / H))
        self.register_buffer("places", torch.stack([angles.sin(), angles.cos()], 2).flatten(1))

    def forward(self, source: Tensor, target: Tensor, padding: int) -> Tensor:
        scale, places = self.source.embedding_dim**0.5, self.get_buffer("places")
        read, written = (
            self.dropout(embedding(ids) * scale + places[: ids.shape[1]])
            for embedding, ids in ((self.source, source), (self.target, target))
        )
        later = torch.ones(target.shape[1], target.shape[1], dtype=torch.bool).triu(1)
        hidden = self.transformer(
            read,
            written,
            tgt_mask=later,
            src_key_padding_mask=source == padding,
            tgt_key_padding_mask=target == padding,
            memory_key_padding_mask=source == padding,
        )
        return self.output(hidden)


TUTORIALS = {"lstm2lstm-attention": TutorialLstm, "transformer": TutorialTransformer}


def tutorial_steps(model: nn.Module, rows: data.Rows, plan: Sequence[np.ndarray], tokenizer: Any) -> Iterator[int]:
    """The training loop of the tutorials; yields the tokens of a step."""
    optimizer, padding = torch.optim.Adam(model.parameters()), tokenizer.pad_token_id
    start, _ = models.start_and_end(tokenizer)
    model.train()
    while True:
        for ids in plan:
            batch = data.collate(rows, padding, ids)
            labels = batch.inputs["labels"].masked_fill(batch.inputs["labels"] == -100, padding)
            optimizer.zero_grad()
            logits = model(batch.inputs["input_ids"], pad(labels[:, :-1], (1, 0), value=start), padding)
            cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=padding).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            yield batch.tokens


@torch.no_grad()
def tutorial_greedy(model: Any, source: list[int]) -> list[int]:
    """One sentence, a word at a time: a recurrent decoder with its state, a Transformer with all words so far."""
    ids, end = torch.tensor([source]), model.config.eos_token_id
    encoded, said, state = model.encoder(ids), [model.config.decoder_start_token_id], None
    while len(said) <= MOST and said[-1] != end:
        if model.config.model_type == "recurrent-seq2seq":
            output = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([said[-1:]]), cache=state)
            state = output.cache
        else:
            output = model(encoder_outputs=encoded, decoder_input_ids=torch.tensor([said]))
        said.append(int(output.logits[0, -1].argmax()))
    return said[1:]


@torch.no_grad()
def our_greedy(model: Any, sources: list[list[int]], padding: int, batch_size: int = 64) -> list[list[int]]:
    """All sentences, in batches of about one length."""
    order = sorted(range(len(sources)), key=lambda i: len(sources[i]))
    found: dict[int, list[int]] = {}
    for first in range(0, len(order), batch_size):
        some = order[first : first + batch_size]
        ids = nn.utils.rnn.pad_sequence(
            [torch.tensor(sources[i]) for i in some], batch_first=True, padding_value=padding
        )
        said = model.generate(
            input_ids=ids, attention_mask=(ids != padding).long(), max_new_tokens=MOST, num_beams=1, do_sample=False
        )
        for i, row in zip(some, said[:, 1:].tolist(), strict=True):
            end = row.index(model.config.eos_token_id) + 1 if model.config.eos_token_id in row else len(row)
            found[i] = row[:end]
    return [found[i] for i in range(len(sources))]


def in_turns(sides: dict[str, Callable[[], float]], repetitions: int) -> dict[str, list[float]]:
    """Units a second of each side, after one turn each that does not count."""
    found: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repetitions + 1):
        for name, side in sides.items():
            speed = side()
            if turn:
                found[name].append(speed)
    return found


def tell(title: str, unit: str, found: dict[str, list[float]]) -> None:
    """Prints a line for each side but the first: its speed, and the ratio to the first."""
    stock, *others = found
    for name in others:
        ratios = [a / b for a, b in zip(found[name], found[stock], strict=True)]
        print(
            f"{title}: {stock} {statistics.median(found[stock]):,.0f} {unit}/s, {name} "
            f"{statistics.median(found[name]):,.0f}, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})",
            flush=True,
        )


def training(name: str, rows: data.Rows, tokenizer: Any, steps: int, batch_size: int, clock: Any) -> Any:
    """The sides of a training row."""
    plan = np.array_split(np.random.default_rng(0).permutation(len(rows)), max(len(rows) // batch_size, 1))
    batches = data.TrainBatches(rows, tokenizer.pad_token_id, batch_size, group_by_length=True)
    torch.manual_seed(0)
    tutorial = TUTORIALS[name](len(tokenizer), SIZES["hidden_size"])
    sides = {"stock": tutorial_steps(tutorial, rows, plan, tokenizer)}
    for precision in ("no", *(["bf16"] if cpu_has_bf16() else [])):
        model = models.load_seq2seq(Seq2SeqConfig(model_name_or_path=name, **SIZES), tokenizer, tokenizer)
        sides["ours" if precision == "no" else "ours in bf16"] = recipe_steps(model, batches, precision=precision)
    parameters = [sum(p.numel() for p in m.parameters()) for m in (tutorial, model)]
    print(f"{name}: {parameters[0]:,} parameters, ours {parameters[1]:,}")

    def speed(taken: Iterator[int]) -> float:
        began = clock()
        tokens = sum(next(taken) for _ in range(steps))
        return tokens / (clock() - began)

    return {side: partial(speed, taken) for side, taken in sides.items()}


def decoding(model: Any, tokenizer: Any, sources: list[list[int]], clock: Any) -> tuple[Any, list[Any]]:
    """The sides of a decoding row, and what each of them said."""
    model.eval()
    said: list[Any] = [None, None]

    def stock() -> float:
        began = clock()
        said[0] = [tutorial_greedy(model, ids) for ids in sources]
        return len(sources) / (clock() - began)

    def ours() -> float:
        began = clock()
        said[1] = our_greedy(model, sources, tokenizer.pad_token_id)
        return len(sources) / (clock() - began)

    return {"stock": stock, "ours": ours}, said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--source_file")
    parser.add_argument("--target_file")
    parser.add_argument("--pairs", type=int, default=8000)
    parser.add_argument("--sentences", type=int, default=256, help="to decode")
    parser.add_argument("--batch_size", type=int, default=64)
    parser.add_argument("--vocab_size", type=int, default=8000)
    parser.add_argument("--steps", type=int, default=8, help="of a turn")
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--cpu_time", action="store_true")
    parser.add_argument("--trained", nargs="*", default=[], help="folders of finished runs of recipes/seq2seq.py")
    arguments = parser.parse_args()
    clock = time.process_time if arguments.cpu_time else time.perf_counter

    files = {"train_file": arguments.source_file, "train_target_file": arguments.target_file}
    config = Seq2SeqConfig(**files if arguments.source_file else {"dataset_name": "samples"})
    config.max_train_samples = arguments.pairs
    split = data.read_parallel(config, "source", "target")["train"]
    sides = models.new_tokenizers(
        "byte-bpe",
        split["text"][:],
        split["target"][:],
        vocab_size=arguments.vocab_size,
        joint=True,
        on_one_process=lambda make: make(),
    )
    tokenizer = sides.source
    encoded = data.encode_pairs(
        split["text"][:],
        split["target"][:],
        tokenizer,
        tokenizer,
        end=models.start_and_end(tokenizer)[1],
        max_seq_length=128,
        max_target_length=128,
    )
    print(f"{encoded}; {torch.get_num_threads()} threads")
    rows = encoded.rows
    for name in TUTORIALS:
        found = training(name, rows, tokenizer, arguments.steps, arguments.batch_size, clock)
        tell(f"training, {name}", "tokens", in_turns(found, arguments.repetitions))

    texts = split["text"][: arguments.sentences]
    kept = []
    for folder in arguments.trained:
        _, _, model, both = models.load_finetuned(ModelArguments(folder))
        kept.append((folder, model, both.source))
    for name in () if kept else TUTORIALS:
        torch.manual_seed(0)
        made = models.load_seq2seq(Seq2SeqConfig(model_name_or_path=name, **SIZES), tokenizer, tokenizer)
        kept.append((name, made, tokenizer))
    for name, model, own in kept:
        found, said = decoding(model, own, own(texts)["input_ids"], clock)
        tell(f"decoding, {name}", "sentences", in_turns(found, arguments.repetitions))
        equal = sum(one == other for one, other in zip(*said, strict=True))
        print(f"  {equal} of {len(texts)} outputs are equal, of {np.mean([len(x) for x in said[0]]):.1f} tokens")


if __name__ == "__main__":
    main()
