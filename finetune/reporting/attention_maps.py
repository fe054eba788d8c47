"""Shows the attention of a model: the maps of an encoder, the maps of an encoder-decoder from target to source,
or the pooling weights of a recurrent classifier.

Shapes: W words (special tokens count as words), R words of the rows, T tokens, L layers, A heads.
"""

import base64
import html
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import BytesIO
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LONGEST = 24  # characters of a word on an axis


@dataclass(frozen=True, eq=False)
class AttentionMaps:
    """The attention of a model over the words of a text.

    `weights` is float32 (L, A, R, W): for each layer and head, the attention from the word of a row to the word of a
    column. Each row adds up to 1. For an encoder-decoder, the words of the rows are `said` (the target), else they
    are `words`. For a recurrent classifier, `weights` is (W,): the share of each word in the pooled vector. Layers,
    heads and words are counted from 0. A notebook shows such an object as HTML.
    """

    words: tuple[str, ...]
    weights: np.ndarray
    said: tuple[str, ...] = ()

    @property
    def rows(self) -> tuple[str, ...]:
        """The words from which attention goes."""
        return self.said or self.words

    def plot(self, layer: int | None = None, head: int | None = None) -> "Figure":
        """Draws all maps (a row for each layer, a column for each head); or one large map with its words.

        If the model has only one map, as an encoder-decoder with Bahdanau's attention has, the map is large.

        Raises:
            ValueError: if the model does not have this layer or head, or if only one of both is given.
        """
        from matplotlib.figure import Figure

        if self.weights.ndim == 1:
            if layer is not None or head is not None:
                raise ValueError("plot: this model has one weight for each word; give neither layer nor head")
            return self._plot_bars()
        L, A, R, W = self.weights.shape
        if layer is None and head is None and L == A == 1:
            layer = head = 0
        if layer is None and head is None:
            side = 1.2
            figure = Figure(figsize=(0.8 + side * A, 0.8 + side * L), layout="constrained")
            axes = figure.subplots(L, A, squeeze=False)
            for i, row in enumerate(axes):
                for j, ax in enumerate(row):
                    image = ax.imshow(self.weights[i, j], cmap="cividis", norm=_norm(), interpolation="nearest")
                    ax.set_xticks([])
                    ax.set_yticks([])
                    if i == 0:
                        ax.set_title(f"head {j}", fontsize=8)
                    if j == 0:
                        ax.set_ylabel(f"layer {i}", fontsize=8)
            figure.colorbar(image, ax=axes, label="attention, from a row to a column", shrink=min(1.0, 6 / L))
            return figure
        if layer is None or head is None or not 0 <= layer < L or not 0 <= head < A:
            raise ValueError(
                f"plot: layer {layer}, head {head}: this model has layers 0 to {L - 1} and heads 0 to {A - 1}; give "
                "a layer and a head, or neither for all maps"
            )
        width, height = (min(max(4.0, 1.8 + 0.32 * words), 40.0) for words in (W, R))
        figure = Figure(figsize=(width + 0.8, height), layout="constrained")
        ax = figure.subplots()
        image = ax.imshow(self.weights[layer, head], cmap="cividis", norm=_norm(), interpolation="nearest")
        # parse_math=False: a word such as $x is not a formula.
        ax.set_xticks(range(W), map(_short, self.words), rotation=90, parse_math=False)
        ax.set_yticks(range(R), map(_short, self.rows), parse_math=False)
        ax.set_xlabel("to the source" if self.said else "to")
        ax.set_ylabel("from the target" if self.said else "from")
        ax.set_title(f"layer {layer}, head {head}")
        figure.colorbar(image, ax=ax, label="attention", shrink=0.8)
        return figure

    def _plot_bars(self) -> "Figure":
        from matplotlib.figure import Figure

        W = len(self.words)
        figure = Figure(figsize=(6.0, min(1.2 + 0.28 * W, 40.0)), layout="constrained")
        ax = figure.subplots()
        bars = ax.barh(range(W), self.weights, color="#0072B2")
        ax.bar_label(bars, [f"{weight:.2f}" for weight in self.weights], padding=3, fontsize=8)
        ax.set_yticks(range(W), map(_short, self.words), parse_math=False)
        ax.invert_yaxis()
        ax.margins(x=0.12, y=0.01)
        ax.set_xlabel("weight in the pooled vector")
        ax.spines[["top", "right"]].set_visible(False)
        return figure

    def html(self) -> str:
        """A part of an HTML page. It needs no network and no styles, and has no identifiers.

        It shows all maps in a small picture, and one map with its words in a table. With JavaScript, a reader chooses
        the map with two lists or with a click into the picture. The colours fit a light and a dark page.
        """
        if self.weights.ndim == 1:
            return self._html_words()
        L, A, R, W = self.weights.shape
        mean = self.weights.mean((0, 1))
        # JavaScript gets the square root of each weight in a byte. The error is below 0.004, and smaller for small
        # weights.
        data = base64.b64encode(np.rint(np.sqrt(self.weights) * 255).astype(np.uint8).tobytes()).decode()
        layers, heads = (
            "".join(f"<option value={i}>{i}</option>" for i in ["all", *range(count)]) for count in (L, A)
        )
        rows = [
            f"<tr><th scope=row>{html.escape(word)}</th>"
            + "".join(f'<td style="--w:{value:.2f}">{_hundredths(value)}</td>' for value in row)
            + "</tr>"
            for word, row in zip(self.rows, mean, strict=True)
        ]
        columns = "".join(f"<th scope=col><span>{html.escape(word)}</span></th>" for word in self.words)
        return (
            f'<div class="finetune-attention" data-shape="{L} {A} {R} {W}" data-weights="{data}">\n'
            f"<style>{_STYLE}</style>\n"
            f'<p>{L} layers (from top to bottom) with {A} heads (from left to right):</p>\n<p><img alt="'
            f'the attention maps of {L} layers and {A} heads" src="data:image/png;base64,{_overview(self.weights)}" '
            f'width="{A * (W + 1) - 1}" height="{L * (R + 1) - 1}"></p>\n'
            f"<p hidden>layer <select>{layers}</select> head <select>{heads}</select></p>\n"
            "<p>Attention in percent, from the word of a row to the word of a column, "
            "<output>mean of all layers and heads</output>:</p>\n"
            f'<div class="finetune-attention-map"><table><thead><tr><td></td>{columns}</tr></thead>\n<tbody>'
            + "\n".join(rows)
            + f"</tbody></table></div>\n<script>{_SCRIPT}</script>\n</div>\n"
        )

    def _html_words(self) -> str:
        most = float(self.weights.max())
        words = " ".join(
            f'<span style="--w:{weight / most:.2f}">{html.escape(word)}<small>{_hundredths(weight)}</small></span>'
            for word, weight in zip(self.words, self.weights, strict=True)
        )
        return (
            f'<div class="finetune-attention">\n<style>{_STYLE}</style>\n'
            f"<p>Weight of each word in the pooled vector, in percent:</p>\n<p>{words}</p>\n</div>\n"
        )

    def _repr_html_(self) -> str:
        return self.html()


def maps_as_html(attention: Mapping[str, Any] | None) -> list[dict[str, Any]]:
    """For a report: for each sample its number, counted from 1, and for each model its name and its map in HTML.

    Args:
        attention: `maps` and `missing`, as `finetune.tasks.cross_attention.maps_of_runs` gives them; None: no maps.
    """
    maps = attention["maps"] if attention else {}
    found: dict[int, dict[str, Any]] = {}
    for name, own in maps.items():
        for one in own:
            sample = found.setdefault(one["sentence"], {"sentence": one["sentence"] + 1, "models": {}})
            weights = np.array(one["weights"], dtype=np.float32)
            sample["models"][name] = AttentionMaps(tuple(one["words"]), weights, tuple(one["said"])).html()
    return list(found.values())


def attention(
    model: Any, text: str | Sequence[str], tokenizer: Any, *, target: str | Sequence[str] | None = None
) -> AttentionMaps:
    """The attention over the words of a text, for each layer and head; or the weights of a recurrent classifier.

    Subwords are merged as in Clark et al. (2019, section 4.1): the attention to a word is the sum over its subwords,
    and the attention from a word is their mean. Afterwards, the model is in the same state as before.

    Args:
        model: a loaded model. `finetune.attention` can also load one.
        text: the words; or a text, which the tokenizer splits into words before it makes subwords. A word without a
            subword has no entry. Each special token has an entry.
        tokenizer: the tokenizer of the model. For an encoder-decoder it may have two parts, `source` and `target`.
        target: for an encoder-decoder, the text that the model writes; the attention goes from its words to `text`.
            Default: the model's own answer.

    Raises:
        ValueError: for a model without attention (mean pooling, a recurrent tagger), for a text without words, and
            for a text with more tokens than the model has positions.
    """
    if model.config.is_encoder_decoder:
        return _cross_attention(model, text, tokenizer, target)
    if target is not None:
        raise ValueError(f"attention: {type(model).__name__} writes no target; give a text alone")
    words, merge, inputs = _words(text, tokenizer)
    recurrent = model.config.model_type == "recurrent"  # there the head has the attention
    found = _attentions(model if recurrent else model.base_model, inputs)
    if recurrent:
        return AttentionMaps(words, (merge @ found[0][0]).astype(np.float32))  # (T,) -> (W,)
    return AttentionMaps(words, _merged(found, merge, merge))


def _merged(found: Sequence[np.ndarray], of_rows: np.ndarray, of_columns: np.ndarray) -> np.ndarray:
    """Maps of tokens to float32 maps of words (L, A, R, W). `of_rows`, `of_columns`: as `_words` gives them."""
    maps = np.stack([layer[0] for layer in found])  # (L, A, T, T)
    merged: np.ndarray = of_rows @ maps @ of_columns.T / of_rows.sum(1)[:, None]
    return merged.astype(np.float32)


def _cross_attention(
    model: Any, text: str | Sequence[str], tokenizer: Any, target: str | Sequence[str] | None
) -> AttentionMaps:
    """The attention from each word of the target, at the step that writes it, to the words of the source."""
    import torch

    source_tokenizer, target_tokenizer = (getattr(tokenizer, side, tokenizer) for side in ("source", "target"))
    words, merge, inputs = _words(text, source_tokenizer)
    source = {key: inputs[key].to(model.device) for key in ("input_ids", "attention_mask")}
    encoder, decoder = model.get_encoder(), model.get_decoder()
    _check_length(encoder, source["input_ids"].shape[1])
    with _eager(model, decoder if hasattr(decoder, "set_attn_implementation") else None), torch.no_grad():
        if target is None:
            said_ids = model.generate(**source)[0]
            target = target_tokenizer.decode(said_ids, skip_special_tokens=True).strip()
        said: tuple[str, ...] = ()
        of_said, ids = np.zeros((0, 0)), []
        if target:  # a model may say nothing
            said, of_said, written = _words(target, target_tokenizer, special=False)
            ids = written["input_ids"][0].tolist()
        end = target_tokenizer.convert_ids_to_tokens(model.config.eos_token_id)
        _check_length(getattr(decoder, "base_model", None), len(ids) + 1)
        output = model(
            encoder_outputs=encoder(**source),
            attention_mask=source["attention_mask"],
            decoder_input_ids=torch.tensor([[model.config.decoder_start_token_id, *ids]], device=model.device),
            output_attentions=True,
        )
    if not output.cross_attentions:
        raise ValueError(
            f"attention: this {type(model).__name__} has no attention; give an encoder-decoder with attention, such "
            "as lstm2lstm-attention or transformer"
        )
    with_end = np.zeros((len(said) + 1, len(ids) + 1))
    with_end[:-1, :-1], with_end[-1, -1] = of_said, 1
    found = [weights.double().cpu().numpy() for weights in output.cross_attentions]
    return AttentionMaps(words, _merged(found, with_end, merge), (*said, end))


def _words(
    text: str | Sequence[str], tokenizer: Any, special: bool = True
) -> tuple[tuple[str, ...], np.ndarray, Any]:
    """The words; float64 (W, T), which is 1 if the token belongs to the word; and the model inputs.

    Args:
        special: whether the tokenizer adds its special tokens.
    """
    if not getattr(tokenizer, "is_fast", False):
        raise ValueError(
            f"attention: {type(tokenizer).__name__} does not know words and their subwords; give a fast tokenizer"
        )
    split = not isinstance(text, str)
    given: Any = list(text) if split else text
    if not given:
        raise ValueError(f"attention: {text!r} has no words; give another text")
    inputs = tokenizer(
        given, is_split_into_words=split, return_offsets_mapping=True, return_tensors="pt", add_special_tokens=special
    )
    offsets = inputs.pop("offset_mapping")[0].tolist()
    tokens, word_ids = inputs.tokens(), inputs.word_ids()
    if all(word is None for word in word_ids):
        raise ValueError(f"attention: {text!r} has no words for this tokenizer; give another text")
    words: list[str] = []
    columns: list[list[int]] = []
    for t, word in enumerate(word_ids):
        if word is not None and t > 0 and word == word_ids[t - 1]:
            columns[-1].append(t)
            continue
        columns.append([t])
        words.append(tokens[t] if word is None else given[word] if split else "")
    for i, of_word in enumerate(columns):
        if not words[i]:  # take the word from the text, because the tokenizer may have changed its characters
            words[i] = given[offsets[of_word[0]][0] : offsets[of_word[-1]][1]].strip() or tokens[of_word[0]]
    merge = np.zeros((len(words), len(tokens)))
    for i, of_word in enumerate(columns):
        merge[i, of_word] = 1
    return tuple(words), merge, inputs


def _attentions(model: Any, inputs: Any) -> list[np.ndarray]:
    """The attention weights that the model gives: float64 (1, A, T, T) for each layer, or a single (1, T)."""
    import torch

    _check_length(model, inputs["input_ids"].shape[1])
    with _eager(model, model), torch.no_grad():
        output = model(**inputs.to(model.device), output_attentions=True)
    found = getattr(output, "attentions", None)
    if not found:
        raise ValueError(
            f"attention: {type(model).__name__} has no attention; give an encoder such as BERT, or a recurrent "
            "classifier of texts with attention pooling"
        )
    return [weights.double().cpu().numpy() for weights in found]


def _check_length(model: Any, length: int) -> None:
    import torch

    positions = getattr(getattr(model, "embeddings", None), "position_embeddings", None)
    if isinstance(positions, torch.nn.Embedding):
        first = 0 if positions.padding_idx is None else positions.padding_idx + 1  # RoBERTa and XLM-R
        limit = positions.num_embeddings - first
        if length > limit:
            raise ValueError(
                f"attention: the text has {length} tokens, but the model has {limit} positions; give a shorter text"
            )


@contextmanager
def _eager(model: Any, attending: Any) -> Iterator[None]:
    """Sets evaluation mode, and an attention implementation that returns its weights. Afterwards restores both.

    Args:
        attending: the part of the model that has the attention; None if it always returns its weights.
    """
    modes = [(module, module.training) for module in model.modules()]
    implementation = "eager" if attending is None else attending.config._attn_implementation
    try:
        model.eval()
        if implementation != "eager":
            attending.set_attn_implementation("eager")
        yield
    finally:
        if implementation != "eager":
            attending.set_attn_implementation(implementation)
        for module, training in modes:
            module.training = training


def _norm() -> Any:
    """Colours: from 0 to 1 in all maps, so that they can be compared. The square root shows small weights."""
    from matplotlib.colors import PowerNorm

    return PowerNorm(0.5, vmin=0, vmax=1)


def _short(word: str) -> str:
    return word if len(word) <= _LONGEST else f"{word[: _LONGEST - 1]}…"


def _hundredths(weight: float) -> str:
    return f"{100 * weight:.0f}"


def _overview(weights: np.ndarray) -> str:
    """All maps in one picture, with a pixel for each weight, as a PNG in base64."""
    from matplotlib.image import imsave

    L, A, R, W = weights.shape
    pixels = np.zeros((L, R + 1, A, W + 1, 4))  # a transparent line between maps
    pixels[..., :3] = np.array([86, 180, 233]) / 255
    pixels[:, :R, :, :W, 3] = 0.08 + 0.92 * np.sqrt(weights.transpose(0, 2, 1, 3))
    file = BytesIO()
    imsave(file, pixels.reshape(L * (R + 1), A * (W + 1), 4)[:-1, :-1], format="png")
    return base64.b64encode(file.getvalue()).decode()


# The sky blue of Okabe and Ito. It is so light that both black and white text can be read on it.
_STYLE = """
.finetune-attention { font: 13px/1.5 system-ui, sans-serif; }
.finetune-attention p { margin: .4em 0; }
.finetune-attention img { image-rendering: pixelated; width: min(100%, 44em); height: auto; }
.finetune-attention-map { overflow-x: auto; }
.finetune-attention table { border-collapse: collapse; width: auto; font-size: 12px; }
.finetune-attention th { font-weight: normal; white-space: nowrap; text-align: right; padding: 0 .5em; }
.finetune-attention thead th { vertical-align: bottom; padding: .3em 0; }
.finetune-attention thead span { writing-mode: vertical-rl; transform: rotate(180deg); }
.finetune-attention tbody td { min-width: 2em; text-align: center; padding: .1em; font-size: 10px; }
.finetune-attention [style] { background: rgb(86 180 233 / calc(.65 * pow(var(--w), .5))); }
.finetune-attention span[style] { display: inline-block; margin: .1em 0; padding: 0 .25em; border-radius: .2em; }
.finetune-attention small { font-size: 9px; margin-left: .3em; }
"""
_SCRIPT = """
(() => {
  const root = document.currentScript.parentElement;
  const [L, A, R, W] = root.dataset.shape.split(" ").map(Number);
  const data = Uint8Array.from(atob(root.dataset.weights), c => c.charCodeAt(0));
  const [layer, head] = root.querySelectorAll("select");
  const cells = root.querySelectorAll("tbody td"), image = root.querySelector("img");
  const chosen = (select, count) => select.value === "all" ? [...Array(count).keys()] : [Number(select.value)];
  const show = () => {
    const layers = chosen(layer, L), heads = chosen(head, A), maps = layers.length * heads.length;
    for (let i = 0; i < R * W; i++) {
      let sum = 0;
      for (const l of layers) for (const a of heads) sum += (data[(l * A + a) * R * W + i] / 255) ** 2;
      cells[i].textContent = Math.round(100 * sum / maps);
      cells[i].style.setProperty("--w", sum / maps);
    }
    const name = (select, word) => select.value === "all" ? `all ${word}s` : `${word} ${select.value}`;
    root.querySelector("output").textContent =
      (maps > 1 ? "mean of " : "") + name(layer, "layer") + ", " + name(head, "head");
  };
  image.onclick = event => {
    layer.value = Math.min(L - 1, Math.floor(event.offsetY / image.clientHeight * L));
    head.value = Math.min(A - 1, Math.floor(event.offsetX / image.clientWidth * A));
    show();
  };
  image.style.cursor = "pointer";
  layer.onchange = head.onchange = show;
  layer.parentElement.hidden = false;
})();
"""
