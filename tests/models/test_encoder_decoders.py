"""Every encoder-decoder against references that are written out; the recurrent ones step by step."""

import itertools

import pytest
import torch
from torch.nn.functional import cross_entropy, log_softmax
from transformers import AutoModelForSeq2SeqLM, PreTrainedTokenizerFast

import finetune  # noqa: F401  # registers the models
from finetune.models import Seq2SeqModelArguments, load_seq2seq, set_target_loss, teacher_forcing_in
from finetune.models.target_loss import decoder_inputs

RECURRENT = {
    "rnn2rnn": {"num_hidden_layers": 2},
    "lstm2lstm": {"num_hidden_layers": 2},
    "gru2gru": {"bidirectional": False},
    "lstm2lstm-attention": {"num_hidden_layers": 2},
    "gru2gru-attention": {"attention": "dot", "input_feeding": True},
    "lstm2lstm-attention, fed": {"num_hidden_layers": 2, "input_feeding": True, "bidirectional": False},
    "gru2gru-attention, dot": {"attention": "dot", "share_embeddings": False},
}
TRANSFORMER = {"transformer": {}, "transformer, norm first": {"norm_first": True, "share_embeddings": False}}
ALL = RECURRENT | TRANSFORMER
SOURCE = torch.tensor([[3, 4, 5, 6, 7], [5, 3, 0, 0, 0], [7, 7, 4, 0, 0]])
MASK = (SOURCE != 0).long()
LABELS = torch.tensor([[4, 2, -100, -100], [6, 5, 3, 2], [7, 2, -100, -100]])
BATCH = {"input_ids": SOURCE, "attention_mask": MASK, "labels": LABELS}


def a_tokenizer(pieces=8):
    from tokenizers import Tokenizer, models

    special = ["<pad>", "<s>", "</s>"]
    words = special + [chr(97 + i) for i in range(pieces - len(special))]
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="a")),
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
    )


def a_model(name, pieces=8, **flags):
    torch.manual_seed(1)
    settings = {"hidden_size": 12, "num_hidden_layers": 2, "dropout": 0.0} | ALL.get(name, {}) | flags
    settings |= {"num_attention_heads": 2} if "transformer" in name else {"embedding_size": 10}
    arguments = Seq2SeqModelArguments(name.partition(",")[0], **settings)
    tokenizer = a_tokenizer(pieces)
    model = load_seq2seq(arguments, tokenizer, tokenizer).eval()
    with torch.no_grad():  # far from the start, where all words are about equally likely
        for parameter in model.parameters():
            parameter.add_((0.8 if parameter.ndim > 1 else 0.1) * torch.randn_like(parameter))
    return model


@pytest.fixture(params=ALL)
def model(request):
    return a_model(request.param)


def one_step(cell, direction, kind, x, state):
    """A step of a cell for one row, from its equations. `state`: h, or h and c."""
    w_x, w_h, b_x, b_h = (
        getattr(cell, f"{part}_l0{direction}") for part in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    )
    h = state[0]
    from_x, from_h = w_x @ x + b_x, w_h @ h + b_h
    if kind == "rnn":
        return [torch.tanh(from_x + from_h)]
    if kind == "gru":
        (r_x, z_x, n_x), (r_h, z_h, n_h) = from_x.chunk(3), from_h.chunk(3)
        r, z = torch.sigmoid(r_x + r_h), torch.sigmoid(z_x + z_h)
        return [(1 - z) * torch.tanh(n_x + r * n_h) + z * h]
    i, f, g, o = (from_x + from_h).chunk(4)
    c = torch.sigmoid(f) * state[1] + torch.sigmoid(i) * torch.tanh(g)
    return [torch.sigmoid(o) * torch.tanh(c), c]


def slow_encoder(model, ids):
    """The states of the upper layer, and the last states of each layer."""
    config, encoder = model.config, model.encoder
    size, K = config.hidden_size // (1 + config.bidirectional), 2 if config.cell == "lstm" else 1
    inputs, last = [encoder.embeddings.weight[i] * config.embedding_size**0.5 for i in ids], []
    for cell in encoder.cells:
        directions, ends = [], []
        for direction in ("", "_reverse")[: 1 + config.bidirectional]:
            state, outputs = [torch.zeros(size)] * K, []
            for x in inputs if not direction else inputs[::-1]:
                state = one_step(cell, direction, config.cell, x, state)
                outputs.append(state[0])
            directions.append(outputs if not direction else outputs[::-1])
            ends.append(state)
        inputs = [torch.cat(both) for both in zip(*directions, strict=True)]
        last.append([torch.cat(both) for both in zip(*ends, strict=True)])
    return inputs, last


def slow_logits(model, ids, words, choose=None):
    """The logits of each step for one row. `words`: the decoder's inputs; `choose`: another word for step t."""
    config, decoder = model.config, model.decoder
    memory, states = slow_encoder(model, ids)
    read, logits, attention = torch.zeros(config.embedding_size), [], []
    for t, word in enumerate(words):
        if choose is not None and t:
            word = choose(t, logits[-1])
        x = decoder.embeddings.weight[word] * config.embedding_size**0.5
        x = torch.cat([x, read]) if config.input_feeding else x
        for layer, cell in enumerate(decoder.cells):
            states[layer] = one_step(cell, "", config.cell, x, states[layer])
            x = states[layer][0]
        if config.attention != "none":
            scores = []
            for h in memory:
                if config.attention == "dot":
                    scores.append(x @ h)
                else:
                    inner = torch.tanh(decoder.query.weight @ x + decoder.query.bias + decoder.key.weight @ h)
                    scores.append(decoder.energy.weight[0] @ inner)
            weights = torch.stack(scores).softmax(0)
            attention.append(weights)
            x = torch.cat([x, sum(weight * h for weight, h in zip(weights, memory, strict=True))])
        read = torch.tanh(decoder.readout.weight @ x + decoder.readout.bias)
        logits.append(model.output.weight @ read + model.output.bias)
    return torch.stack(logits), attention


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_ones_against_their_equations(name):
    model = a_model(name)
    output = model(**BATCH, output_attentions=True)
    for row, inputs in enumerate(decoder_inputs(LABELS, model.config)):
        ids, T = SOURCE[row][MASK[row].bool()].tolist(), int((LABELS[row] != -100).sum())
        slow, attention = slow_logits(model, ids, inputs[:T].tolist())
        torch.testing.assert_close(output.logits[row, :T], slow, atol=1e-4, rtol=1e-4)
        for t, weights in enumerate(attention):
            seen = output.cross_attentions[0][row, 0, t]
            torch.testing.assert_close(seen[: len(ids)], weights, atol=1e-4, rtol=1e-4)
            assert not seen[len(ids) :].any()
    assert (output.cross_attentions is None) == ("attention" not in name)


@pytest.mark.filterwarnings("ignore:enable_nested_tensor")
@pytest.mark.parametrize("name", TRANSFORMER)
def test_the_transformer_against_torchs_own(name):
    model = a_model(name)
    H, first = model.config.hidden_size, model.config.norm_first
    own = torch.nn.Transformer(H, 2, 2, 2, 4 * H, 0.0, batch_first=True, norm_first=first)
    if not first:  # torch normalises once more
        own.encoder.norm = own.decoder.norm = None
    ours, theirs = model.state_dict(), {}
    for key in own.state_dict():
        kind, _, rest = key.partition(".")
        if rest.startswith("norm."):
            theirs[key] = ours[key]
            continue
        _, layer, part, *tail = rest.split(".")
        prefix, end = f"{kind}.layers.{layer}", tail[-1] if tail else ""
        attention = {"self_attn": "attention", "multihead_attn": "source_attention"}.get(part)
        norms = ["after_attention", *(["after_source"] if kind == "decoder" else []), "after_feed_forward"]
        if attention and end.startswith("in_proj"):
            sides = ("query", "key", "value")
            theirs[key] = torch.cat([ours[f"{prefix}.{attention}.{side}.{end[8:]}"] for side in sides])
        elif attention:
            theirs[key] = ours[f"{prefix}.{attention}.output.{end}"]
        elif part.startswith("linear"):
            theirs[key] = ours[f"{prefix}.feed_forward.{'up' if part == 'linear1' else 'down'}.{end}"]
        else:
            theirs[key] = ours[f"{prefix}.{norms[int(part[-1]) - 1]}.norm.{end}"]
    own.load_state_dict(theirs)

    def words(side, ids):
        at = torch.tensor([[t / 10_000 ** (2 * (i // 2) / H) for i in range(H)] for t in range(ids.shape[1])])
        return model.get_submodule(side).embeddings(ids) * H**0.5 + torch.where(
            torch.arange(H) % 2 == 0, at.sin(), at.cos()
        )

    inputs = decoder_inputs(LABELS, model.config)
    later = torch.ones(4, 4).triu(1).bool()
    source, target = words("encoder", SOURCE), words("decoder", inputs)
    hidden = own.eval()(
        source, target, tgt_mask=later, src_key_padding_mask=MASK == 0, memory_key_padding_mask=MASK == 0
    )
    real = LABELS != -100
    expected = model.output(hidden)[real]
    torch.testing.assert_close(model(**BATCH).logits[real], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(model(**BATCH, output_attentions=True).logits[real], expected, atol=1e-4, rtol=1e-4)


def test_loss_and_gradients_do_not_depend_on_padding(model):
    """The sum over a batch, with more padding, is the sum over its rows alone; and so are its gradients."""
    set_target_loss(model, label_smoothing=0.1)
    wider = {
        key: torch.nn.functional.pad(value, (0, 2), value=-100 if key == "labels" else 0)
        for key, value in BATCH.items()
    }
    gradients, sums = [], []
    rows = [
        {"input_ids": SOURCE[i : i + 1, : MASK[i].sum()], "labels": LABELS[i : i + 1, : (LABELS[i] != -100).sum()]}
        for i in range(3)
    ]
    for training in (True, False):
        for batches in ([wider], rows):
            model.train(training).zero_grad()
            total = 0.0
            for batch in batches:
                summed = model(**batch).loss * (batch["labels"] != -100).sum()
                summed.backward()
                total += summed.item()
            sums.append(total)
            gradients.append([parameter.grad.clone() for parameter in model.parameters()])
    assert sums[0] == pytest.approx(sums[1], rel=1e-5) != sums[2] == pytest.approx(sums[3], rel=1e-5)
    for pair in (gradients[:2], gradients[2:]):
        for one, other in zip(*pair, strict=True):
            torch.testing.assert_close(one, other, atol=1e-4, rtol=1e-3)


def test_the_loss_is_the_mean_over_the_targets_and_smoothed_in_training_only(model):
    set_target_loss(model, label_smoothing=0.2)
    logits = model(**BATCH).logits.detach()
    real = LABELS != -100
    log_p = log_softmax(logits[real], -1)
    right = -log_p.gather(1, LABELS[real][:, None]).mean()
    assert model(**BATCH).loss.item() == pytest.approx(right.item(), rel=1e-5)
    smoothed = 0.8 * right + 0.2 * -log_p.mean()
    trained = model.train()(**BATCH)
    assert trained.loss.item() == pytest.approx(smoothed.item(), rel=1e-5)
    torch.testing.assert_close(trained.logits, logits[real], atol=1e-4, rtol=1e-4)


def test_no_position_sees_a_later_one(model):
    inputs = decoder_inputs(LABELS, model.config)
    for t in range(1, 4):
        other = inputs.clone()
        other[:, t:] = 3 + (other[:, t:] + 1) % 5
        one, two = (model(SOURCE, MASK, decoder_input_ids=ids).logits for ids in (inputs, other))
        torch.testing.assert_close(one[:, :t], two[:, :t], atol=1e-6, rtol=0)
        assert not torch.allclose(one[:, t:], two[:, t:], atol=1e-3)


def greedy(model, ids, most):
    """One row, without a cache."""
    said = [model.config.decoder_start_token_id]
    while len(said) <= most and said[-1] != model.config.eos_token_id:
        logits = model(torch.tensor([ids]), decoder_input_ids=torch.tensor([said])).logits
        said.append(int(logits[0, -1].argmax()))
    return said


@torch.no_grad()
def test_generate_in_a_batch_is_a_slow_loop_over_each_row(model):
    together = model.generate(input_ids=SOURCE, attention_mask=MASK, max_new_tokens=8, do_sample=False)
    several = {"max_new_tokens": 8, "num_beams": 3, "num_return_sequences": 3}
    beams = model.generate(input_ids=SOURCE, attention_mask=MASK, **several)
    assert torch.equal(model.generate(input_ids=SOURCE, attention_mask=MASK, **several, use_cache=False), beams)
    for row in range(3):
        ids = SOURCE[row][MASK[row].bool()]
        said = greedy(model, ids.tolist(), 8)
        assert together[row].tolist() == said + [0] * (together.shape[1] - len(said))
        alone = model.generate(input_ids=ids[None], **several)
        assert beams[3 * row : 3 * row + 3, : alone.shape[1]].tolist() == alone.tolist()


@torch.no_grad()
@pytest.mark.parametrize("penalty", [0.0, 1.0, 2.0])
@pytest.mark.parametrize("name", ["lstm2lstm", "lstm2lstm-attention, fed", "gru2gru-attention, dot", "transformer"])
def test_a_beam_that_is_wide_enough_finds_the_best_of_all_sequences(name, penalty):
    model = a_model(name, pieces=4)
    ids, most, V = torch.tensor([[3, 2, 3]]), 4, 4
    start, end = model.config.decoder_start_token_id, model.config.eos_token_id
    scores = {}
    for words in itertools.product(range(V), repeat=most):
        until = words.index(end) + 1 if end in words else most
        said = words[:until]
        if said not in scores:
            logits = model(ids, decoder_input_ids=torch.tensor([[start, *said[:-1]]])).logits[0]
            log_p = log_softmax(logits, -1)
            scores[said] = sum(log_p[t, word].item() for t, word in enumerate(said)) / len(said) ** penalty
    best, score = max(scores.items(), key=lambda item: item[1])
    found = model.generate(
        input_ids=ids,
        max_new_tokens=most,
        num_beams=V ** (most - 1),
        length_penalty=penalty,
        early_stopping="never",
        return_dict_in_generate=True,
        output_scores=True,
    )
    assert found.sequences[0].tolist()[1 : len(best) + 1] == list(best)
    assert found.sequences_scores[0].item() == pytest.approx(score, rel=1e-4)


@pytest.mark.parametrize("name", ["gru2gru", "lstm2lstm-attention", "gru2gru-attention"])
def test_scheduled_sampling_gives_the_decoder_its_own_words(name):
    model = a_model(name).train()
    given = model(**BATCH)
    torch.testing.assert_close(model(**BATCH, teacher_forcing=torch.ones(3)).loss, given.loss)
    for share in (0.0, 0.5):
        torch.manual_seed(3)
        found = model(**BATCH, teacher_forcing=torch.full((3,), share))
        torch.manual_seed(3)
        coins = torch.rand(LABELS.shape) < share
        rows = []
        for row, inputs in enumerate(decoder_inputs(LABELS, model.config).tolist()):

            def choose(t, logits, row=row, inputs=inputs, coins=coins):
                return inputs[t] if coins[row, t] else int(logits.argmax())

            T = int((LABELS[row] != -100).sum())
            rows.append(slow_logits(model, SOURCE[row][MASK[row].bool()].tolist(), inputs[:T], choose)[0])
        slow = torch.cat(rows)
        torch.testing.assert_close(found.logits, slow, atol=1e-4, rtol=1e-4)
        assert found.loss.item() == pytest.approx(cross_entropy(slow, LABELS[LABELS != -100]).item(), rel=1e-5)
    assert found.loss.item() != pytest.approx(given.loss.item(), rel=1e-5)
    assert model.eval()(**BATCH, teacher_forcing=torch.zeros(3)).loss.item() == pytest.approx(
        given.loss.item(), rel=1e-5
    )


def test_the_share_of_given_words_falls_in_equal_steps():
    assert [teacher_forcing_in(epoch, 5, 0.6) for epoch in range(5)] == pytest.approx([1.0, 0.9, 0.8, 0.7, 0.6])
    assert teacher_forcing_in(0, 1, 0.6) == 0.6
    assert {teacher_forcing_in(epoch, 3, 1.0) for epoch in range(3)} == {1.0}


def test_saved_and_loaded(model, tmp_path):
    model.save_pretrained(tmp_path)
    tokenizer = a_tokenizer()
    for again in (
        AutoModelForSeq2SeqLM.from_pretrained(tmp_path),
        load_seq2seq(Seq2SeqModelArguments(str(tmp_path)), tokenizer, tokenizer),
    ):
        torch.testing.assert_close(again.eval()(**BATCH).logits, model(**BATCH).logits, atol=1e-6, rtol=1e-5)
        said = [m.generate(input_ids=SOURCE, attention_mask=MASK, max_new_tokens=8) for m in (again, model)]
        assert torch.equal(*said)
        again.train()(**BATCH).loss.backward()  # shared weights are shared again
        assert [name for name, p in again.named_parameters() if p.grad is None] == []
        assert len(list(again.parameters())) == len(list(model.parameters()))


def test_embeddings_are_shared_where_the_tokenizer_is():
    one, two = a_tokenizer(), a_tokenizer()
    for name in ("lstm2lstm", "transformer"):
        for share, target, shared in ((True, one, 3), (True, two, 2), (False, one, 1)):
            flags = {"hidden_size": 8, "share_embeddings": share}
            model = load_seq2seq(Seq2SeqModelArguments(name, **flags), one, target)
            weights = [model.decoder.embeddings.weight, model.encoder.embeddings.weight, model.output.weight]
            assert sum(weight is weights[0] for weight in weights) == shared


@pytest.mark.parametrize(
    ("name", "flags", "message"),
    [
        ("transformer", {"input_feeding": True, "bidirectional": False}, "--bidirectional, --input_feeding: transfo"),
        ("lstm2lstm", {"attention": "dot"}, "--attention: lstm2lstm has no use for this flag"),
        ("bert2bert", {"hidden_size": 8}, "--hidden_size: bert2bert has no use"),
        ("transformer", {"encoder_name_or_path": "x"}, "--encoder_name_or_path: transformer has no use"),
        ("transformer", {"hidden_size": 10}, "--hidden_size 10: must be a multiple of twice --num_attention_heads"),
        ("lstm2lstm", {"hidden_size": 9}, "--hidden_size 9: two directions need an even number"),
        ("lstm2lstm", {"num_hidden_layers": 0}, "--num_hidden_layers 0: must be from 1"),
        ("lstm2lstm", {"dropout": 1.0}, "--dropout 1.0: must be at least 0 and below 1"),
        ("lstm2lstm", {"teacher_forcing": 1.5}, "--teacher_forcing 1.5: must be from 0 to 1"),
        ("lstm2lstm", {"hidden_size": 90_000}, "--hidden_size 90000: this model would have about"),
        ("lstm2lsmt", {}, "no such folder, and no built-in encoder-decoder; did you mean lstm2lstm"),
        ("roberta2roberta", {}, "roberta2roberta: give its checkpoint as --encoder_name_or_path"),
        ("bert2rnd", {"tie_encoder_decoder": True}, "--tie_encoder_decoder: the decoder of bert2rnd"),
        (
            "xlmr2xlmr",
            {"encoder_name_or_path": "sentence-transformers/all-MiniLM-L6-v2"},
            "a bert checkpoint, and xl",
        ),
        ("sentence-transformers/all-MiniLM-L6-v2", {}, "a bert checkpoint, no encoder-decoder of this package"),
    ],
)
def test_what_cannot_be_is_refused(name, flags, message):
    tokenizer = a_tokenizer()
    with pytest.raises(ValueError, match=r"^--") as error:
        load_seq2seq(Seq2SeqModelArguments(name, **flags), tokenizer, tokenizer)
    assert message in str(error.value)
