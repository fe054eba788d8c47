import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoModelForSequenceClassification,
    AutoModelForTokenClassification,
    AutoTokenizer,
)

import finetune
from finetune.arguments import ModelArguments, TrainingArguments
from finetune.models import BASELINES, load
from finetune.models.embeddings import standardised
from finetune.training.optimizers import build_optimizer

LABELS = ["O", "B-PER", "I-PER"]
TEXTS = [
    "Ada Lovelace wrote to Charles Babbage .",
    "It rained .",
    "Why would Oslo , of all places , be dry ?",
]
WORDS = [word for text in TEXTS for word in text.split()]


def a_model(task="token-classification", pooling="attention", pairs=False, **arguments):
    torch.manual_seed(0)
    settings = {
        "model_name_or_path": "bilstm",
        "hidden_size": 12,
        "embedding_size": 10,
        "char_hidden_size": 6,
    } | arguments
    labels = LABELS if task == "token-classification" else ["neg", "pos"]
    words = WORDS if task == "token-classification" else TEXTS
    model, tokenizer = load(
        task, ModelArguments(**settings), labels, words=words, max_seq_length=128, pooling=pooling, pairs=pairs
    )
    return model.eval(), tokenizer


@pytest.mark.parametrize("name", list(BASELINES))
@pytest.mark.parametrize("characters", ["none", "cnn", "bilstm"])
def test_padding_changes_nothing(name, characters):
    model, tokenizer = a_model(model_name_or_path=name, char_features=characters, num_hidden_layers=2)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    together = model(**batch).logits
    for i, text in enumerate(TEXTS):
        alone = model(**tokenizer(text, return_tensors="pt")).logits[0]
        assert torch.allclose(together[i, : len(alone)], alone, atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
@pytest.mark.parametrize("name", ["lstm", "bilstm"])
def test_pooling(name, pooling):
    model, tokenizer = a_model("sequence-classification", pooling, model_name_or_path=name)
    batch = tokenizer(TEXTS, padding=True, return_tensors="pt")
    together = model(**batch)
    for i, text in enumerate(TEXTS):
        single = tokenizer(text, return_tensors="pt")
        assert torch.allclose(together.logits[i], model(**single).logits[0], atol=1e-6)
        hidden = model.encoder(**single).last_hidden_state[0]
        if pooling == "attention":
            weights = together.attentions[0][i]
            assert weights.sum().item() == pytest.approx(1.0, abs=1e-5)
            assert (weights[len(hidden) :] == 0).all()
            pooled = weights[: len(hidden)] @ hidden
        elif pooling == "last":
            half = model.config.hidden_size
            pooled = hidden[-1] if name == "lstm" else torch.cat([hidden[-1, :half], hidden[0, half:]])
        else:
            pooled = hidden.mean(0) if pooling == "mean" else hidden.max(0).values
        assert torch.allclose(model.classifier(pooled), together.logits[i], atol=1e-5)


def test_direction():
    for name, sees_what_follows in (("lstm", False), ("bilstm", True)):
        model, tokenizer = a_model(model_name_or_path=name)
        first, second = (
            model(**tokenizer(t, return_tensors="pt")).logits[0, 0] for t in ("Ada wrote .", "Ada rained ?")
        )
        assert torch.allclose(first, second) != sees_what_follows


def test_the_cell_is_the_one_named():
    kinds = {name: type(a_model(model_name_or_path=name)[0].encoder.recurrent).__name__ for name in BASELINES}
    assert kinds == {"rnn": "RNN", "lstm": "LSTM", "gru": "GRU", "bilstm": "LSTM", "bilstm-crf": "LSTM"}
    bigru = a_model(cell="gru")[0].encoder.recurrent
    assert (type(bigru).__name__, bigru.bidirectional) == ("GRU", True)


def test_vectors_of_any_scale_begin_alike():
    torch.manual_seed(0)
    given = torch.randn(200, 8) * 0.05 + torch.arange(8.0)
    given[7] = torch.nan
    made = standardised(given)
    known = [i for i in range(200) if i != 7]
    assert torch.allclose(made[known].mean(dim=0), torch.zeros(8), atol=1e-4)
    assert made[known].std(correction=0).item() == pytest.approx(1.0, abs=1e-4)
    assert made[7].isfinite().all()


def test_a_words_characters_are_read_up_to_its_last_byte():
    """As torch's own LSTM ends with each word alone: forwards behind the last byte, backwards before the first."""
    model, tokenizer = a_model(char_features="bilstm")
    characters = model.encoder.characters
    for word in ("Oslo", "a", "extraordinarily"):
        (char_ids,) = tokenizer([[word]], is_split_into_words=True, return_tensors="pt")["char_ids"]
        _, (ends, _) = characters.lstm(characters.embedding(char_ids[:, : len(word)].long()))
        assert torch.allclose(characters(char_ids.long())[0], ends[:, 0].flatten(), atol=1e-6)


def test_word_dropout_replaces_words_in_training_only():
    model, tokenizer = a_model(word_dropout=1.0, dropout=0.0, char_features="none")
    batch = tokenizer(TEXTS[:1], return_tensors="pt")
    unknown = {**batch, "input_ids": torch.full_like(batch["input_ids"], tokenizer.unk_token_id)}
    assert torch.equal(model.train()(**batch).logits, model(**unknown).logits)
    assert not torch.equal(model.eval()(**batch).logits, model(**unknown).logits)


def test_unknown_words_are_told_apart_by_their_characters():
    model, tokenizer = a_model()
    encoded = tokenizer(["Zanzibar", "quixotic"], return_tensors="pt")
    assert encoded["input_ids"].flatten().tolist() == [tokenizer.unk_token_id] * 2
    first, second = model(**encoded).logits
    assert not torch.allclose(first, second)


def test_rare_words_are_unknown():
    _, tokenizer = a_model(min_word_frequency=2)
    words = tokenizer.convert_ids_to_tokens(range(len(tokenizer)))
    assert set(words) == {"<pad>", "<unk>", "<sep>", ".", ","}


@pytest.mark.parametrize("name", ["rnn", "gru", "bilstm", "bilstm-crf"])
def test_saved_and_loaded_through_the_auto_classes(tmp_path, name):
    model, tokenizer = a_model(model_name_or_path=name)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    assert (tmp_path / "tokenizer.json").is_file()
    again, tokenizer_again = (
        AutoModelForTokenClassification.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    assert type(again) is type(model)
    assert AutoConfig.from_pretrained(tmp_path).id2label == dict(enumerate(LABELS))
    for text in TEXTS:
        inputs, inputs_again = (t(text, return_tensors="pt") for t in (tokenizer, tokenizer_again))
        assert all(torch.equal(inputs[key], inputs_again[key]) for key in inputs)
        # Not equal: weights read from a file may lie at another alignment, where sums round differently.
        assert torch.allclose(again.eval()(**inputs_again).logits, model(**inputs).logits, atol=1e-5)
    weights, weights_again = model.state_dict(), again.state_dict()
    assert weights.keys() == weights_again.keys()
    assert all(torch.equal(weights[key], weights_again[key]) for key in weights)


def test_sequence_classifier_saved_and_loaded(tmp_path):
    model, tokenizer = a_model("sequence-classification")
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path).eval()
    inputs = tokenizer(TEXTS, padding=True, return_tensors="pt")
    assert torch.allclose(again(**inputs).logits, model(**inputs).logits, atol=1e-5)


def test_vectors_from_a_text_file(tmp_path):
    table = {"ada": [1.0, 2.0, 3.0], "rained": [0.0, 1.0, 0.0], "neverseen": [5.0, 5.0, 6.0]}
    lines = [f"{word} {' '.join(map(str, vector))}" for word, vector in table.items()]
    for header in ([], ["3 3"]):
        (tmp_path / "v.txt").write_text("\n".join([*header, *lines]) + "\n")
        model, tokenizer = a_model(embeddings=str(tmp_path / "v.txt"))
        weights = model.encoder.embeddings.weight.detach()
        ids = {word: tokenizer.convert_tokens_to_ids(word) for word in table}
        assert tokenizer.unk_token_id not in ids.values()
        # Start values are the file's up to one shift and one scale, so differences stay parallel.
        ours = weights[ids["ada"]] - weights[ids["rained"]]
        theirs = torch.tensor(table["ada"]) - torch.tensor(table["rained"])
        other = (weights[ids["neverseen"]] - weights[ids["ada"]]) / (torch.tensor([4.0, 3.0, 3.0]))
        assert torch.allclose(ours / theirs, other, atol=1e-5)
        assert (weights[tokenizer.pad_token_id] == 0).all()
    (tmp_path / "v.txt").write_text("ada 1 2 3\nran 1 2\n")
    with pytest.raises(ValueError, match=r"v.txt:2: not a word followed by 3 numbers"):
        a_model(embeddings=str(tmp_path / "v.txt"))
    (tmp_path / "v.txt").write_text("ada 1 2 3\nran 1 2 x\n")
    with pytest.raises(ValueError, match=r"v.txt:2: not a word followed by 3 numbers"):
        a_model(embeddings=str(tmp_path / "v.txt"))


def test_vectors_from_a_checkpoint(checkpoints, kind):
    from transformers import AutoModel

    model, tokenizer = a_model(embeddings=str(checkpoints[kind]))
    table = AutoModel.from_pretrained(checkpoints[kind]).get_input_embeddings().weight.detach()
    source = finetune.models.load_tokenizer(str(checkpoints[kind]))
    weights = model.encoder.embeddings.weight.detach()
    means = [
        table[source([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]].mean(0)
        for word in ("lovelace", "wrote", "it")
    ]
    ours = [weights[tokenizer.convert_tokens_to_ids(word)] for word in ("lovelace", "wrote", "it")]
    scale = (ours[0] - ours[1]) / (means[0] - means[1])
    assert torch.allclose((ours[0] - ours[2]) / (means[0] - means[2]), scale, rtol=1e-3)


def test_the_tokenizer_keeps_words_and_gives_their_bytes():
    _, tokenizer = a_model()
    text = 'He said: "Ada (of U.S. fame) wrote http://t.co/x, didn\'t she?"'
    tokens = [text[a:b] for a, b in tokenizer(text, return_offsets_mapping=True)["offset_mapping"]]
    assert tokens == [
        "He",
        "said",
        ":",
        '"',
        "Ada",
        "(",
        "of",
        "U.S",
        ".",
        "fame",
        ")",
        "wrote",
        "http://t.co/x",
        ",",
        "didn't",
        "she",
        '?"',
    ]
    encoded = tokenizer([["Ada", "Ørsted"], ["x" * 30]], is_split_into_words=True, padding=True)
    assert np.array(encoded["char_ids"]).shape == (2, 2, 24)
    assert bytes(encoded["char_ids"][0][1]).rstrip(b"\0").decode() == "Ørsted"
    assert bytes(encoded["char_ids"][1][0]) == b"x" * 24
    assert not any(encoded["char_ids"][1][1])
    assert encoded["input_ids"][1][1] == tokenizer.pad_token_id


def test_a_crf_is_not_for_texts():
    with pytest.raises(ValueError, match="bilstm-crf: a CRF labels words"):
        a_model("sequence-classification", model_name_or_path="bilstm-crf")


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
def test_empty_texts_are_one_unknown_word(pooling):
    model, tokenizer = a_model("sequence-classification", pooling)
    batch = tokenizer(["", TEXTS[0]], padding=True, return_tensors="pt")
    together = model(**batch).logits
    assert torch.isfinite(together).all()
    alone = model(**{key: value.long() for key, value in tokenizer([""], return_tensors="pt").items()}).logits[0]
    assert torch.allclose(together[0], alone, atol=1e-6)
    unknown = {"input_ids": torch.tensor([[tokenizer.unk_token_id]]), "char_ids": torch.zeros(1, 1, 24).long()}
    assert torch.allclose(alone, model(**unknown).logits[0], atol=1e-6)


@pytest.mark.parametrize("pooling", ["mean", "max", "last", "attention"])
def test_pairs_are_read_one_text_alone(pooling, tmp_path):
    """Against a classifier of single texts with the same weights: the head sees u, v, |u - v|, u * v."""
    saved, tokenizer = a_model("sequence-classification", pooling, pairs=True)
    saved.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(tmp_path),
        AutoTokenizer.from_pretrained(tmp_path),
    )
    with pytest.raises(ValueError, match="this baseline reads pairs of texts; give the second texts"):
        a_model("sequence-classification", model_name_or_path=str(tmp_path))
    alone, its_own = a_model("sequence-classification", pooling)
    alone.load_state_dict({k: v for k, v in model.state_dict().items() if "classifier" not in k}, strict=False)
    alone.classifier = torch.nn.Identity()

    def vector(text):
        return alone(**{k: v.long() for k, v in its_own([text], return_tensors="pt").items()})

    firsts = [TEXTS[0], "a <sep> b", "", TEXTS[2], ""]
    seconds = [TEXTS[1], TEXTS[0], TEXTS[1], TEXTS[2], ""]
    together = model(**tokenizer(firsts, seconds, padding=True, return_tensors="pt"))
    for i, (first, second) in enumerate(zip(firsts, seconds, strict=True)):
        u, v = (vector(text).logits[0] for text in (first, second))
        expected = model.classifier(torch.cat([u, v, abs(u - v), u * v]))
        assert torch.allclose(together.logits[i], expected, atol=1e-6)
        assert torch.equal(u, v) is (first == second)
        if pooling == "attention":
            weights = torch.cat([torch.zeros(0), *(vector(t).attentions[0][0] for t in (first, second) if t)])
            assert torch.allclose(together.attentions[0][i, : len(weights)], weights, atol=1e-6)
    one = {k: v.long() for k, v in tokenizer([""], [""], return_tensors="pt").items()}
    assert torch.allclose(model(**one).logits[0], together.logits[4], atol=1e-6)


def test_a_crf_head_for_any_cell_and_new_labels_start_anew(tmp_path):
    torch.manual_seed(0)
    settings = {"hidden_size": 8, "embedding_size": 8, "char_hidden_size": 6}
    keywords = {"words": WORDS, "max_seq_length": 16}
    first = ModelArguments(model_name_or_path="gru", **settings)
    model, tokenizer = load("token-classification", first, LABELS, head="crf", **keywords)
    assert (model.crf.transitions == 0).all()
    with torch.no_grad():
        for parameter in model.crf.parameters():
            parameter.fill_(3.0)
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    saved = ModelArguments(model_name_or_path=str(tmp_path))
    assert (load("token-classification", saved, LABELS, **keywords)[0].crf.transitions == 3.0).all()
    for labels in (["O", "B-X", "I-X"], ["O", "B-X", "I-X", "B-Y", "I-Y"]):
        crf = load("token-classification", saved, labels, **keywords)[0].crf
        assert crf.labels == labels
        assert all((parameter == 0).all() for parameter in crf.parameters())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("ada 1 2 3\n. . 4 5 6\nran 1 0 0\n", ["ada", ". .", "ran"]),
        ("2 3\nNew York 1 2 3\nran 1 0 0", ["New York", "ran"]),
        ("ada\t1\t2\nNew York\t3\t4\n", ["ada", "New York"]),
        ("ada 1 2 \r\nran 3 4 \r\n\r\n\n", ["ada", "ran"]),
        ("\ufeff2 1\nada 1\nran 2\n", ["ada", "ran"]),
        ("ada 1\nran 2\n", ["ada", "ran"]),
        ("12 7\n" * 3, None),
    ],
)
def test_forms_of_vector_files(tmp_path, text, words):
    (tmp_path / "v.txt").write_text(text, encoding="utf-8", newline="")
    if words is None:  # the first line is a header by its form, and then a number of words that is wrong
        with pytest.raises(ValueError, match=r"v.txt:2: not a word followed by 7 numbers"):
            finetune.models.read_vectors(tmp_path / "v.txt")
        return
    found, table = finetune.models.read_vectors(tmp_path / "v.txt")
    assert found == words
    numbers = [line.split()[-table.shape[1] :] for line in text.splitlines() if line.strip()][-len(words) :]
    assert table.tolist() == [[float(number) for number in row] for row in numbers]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("ada 1 2\nran inf 2\n", "v.txt:2: the vector of 'ran' has a number that is not finite"),
        ("ada 1 2\nran 1 nan\n", "v.txt:2: the vector of 'ran' has a number that is not finite"),
        ("ada 1e39 2\n", "v.txt:1: the vector of 'ada' has a number that is not finite"),
        ("2 3\nada 1 2 3\n", "v.txt: its first line says that there are 2 words, and there are 1; is the file whole"),
        ("2 3\nada 1 2 3\nin 1990 1", "v.txt:3: not a word followed by 3 numbers"),
        ("ada\n", "v.txt:1: not a word followed by its numbers"),
        ("\n\n", "v.txt: no word vector in this file"),
    ],
)
def test_vector_files_that_are_none(tmp_path, text, message):
    (tmp_path / "v.txt").write_text(text)
    with pytest.raises(ValueError, match=message):
        finetune.models.read_vectors(tmp_path / "v.txt")


@pytest.mark.parametrize("characters", ["none", "cnn"])
def test_each_word_gets_its_own_vector(tmp_path, characters, caplog):
    """Of a cased and of a lower-case file, with a vocabulary that keeps the case (`none`) and one that does not."""
    for lines, expected in (
        ("Turkey 1 0 0\nturkey 0 1 0\nOSLO 0 0 1\n", {"Turkey": 0, "turkey": 1, "OSLO": 2, "Oslo": 2}),
        ("turkey 1 0 0\noslo 0 1 0\nrhine 0 0 1\n", {"Turkey": 0, "turkey": 0, "Oslo": 1, "oslo": 1}),
    ):
        (tmp_path / "v.txt").write_text(lines)
        torch.manual_seed(0)
        arguments = ModelArguments("lstm", embeddings=str(tmp_path / "v.txt"), char_features=characters)
        words = ["Turkey", "Oslo", "Nowhere"]
        caplog.clear()
        model, tokenizer = load("token-classification", arguments, LABELS, words=words, max_seq_length=8)
        counts = {("none", 0): (1, 1), ("none", 1): (0, 2), ("cnn", 0): (1, 1), ("cnn", 1): (2, 0)}
        same, other = counts[characters, int(lines.startswith("turkey"))]
        assert f"of 3 training words {same} have a vector, {other} have one in" in caplog.text
        assert "1 have none" in caplog.text
        table = model.encoder.embeddings.weight.detach()
        ids = {word: tokenizer([word], is_split_into_words=True)["input_ids"][0] for word in expected}
        for word, row in expected.items():
            if characters == "cnn" and word == "Turkey":
                row = expected["turkey"]  # looked up in lower case
            largest = int(table[ids[word]].argmax())
            assert largest == row, (word, lines)


def test_dropout_is_where_it_belongs():
    """On what goes into the recurrent layers, between them, and on what goes into the head."""
    for task in ("token-classification", "sequence-classification"):
        model, tokenizer = a_model(task, dropout=0.5, word_dropout=0.0, num_hidden_layers=2)
        batch = tokenizer(TEXTS[:1], return_tensors="pt")
        expected = model(**batch).logits
        for part in (model.encoder.dropout, model.dropout):
            part.train()
            assert not torch.allclose(model(**batch).logits, expected), part
            part.eval()
    assert torch.allclose(model(**batch).logits, expected)


def test_several_layers_are_the_cells_of_torch_and_train_at_a_rate_each(tmp_path):
    """The outputs of one `nn.LSTM` of two layers; old folders that have one are told."""
    model, tokenizer = a_model(num_hidden_layers=2, hidden_size=12)
    encoder = model.encoder
    whole = torch.nn.LSTM(16, 12, num_layers=2, bidirectional=True, batch_first=True)
    for name, weight in whole.named_parameters():
        cell = encoder.recurrent if "_l0" in name else encoder.recurrent_above["1"]
        weight.data = getattr(cell, name.replace("_l1", "_l0"))
    inputs = tokenizer(TEXTS[0], return_tensors="pt")
    features = encoder.features(inputs["input_ids"], inputs["attention_mask"], inputs["char_ids"])
    assert torch.allclose(encoder(**inputs).last_hidden_state, whole(features)[0], atol=1e-6)
    rates = {}
    for group in build_optimizer(model, TrainingArguments(learning_rate=1.0, layerwise_lr_decay=0.5)).param_groups:
        rates |= {id(parameter): group["lr"] for parameter in group["params"]}
    found = {name: rates[id(value)] for name, value in encoder.named_parameters()}
    assert {found[f"recurrent_above.1.{name}"] for name, _ in encoder.recurrent.named_parameters()} == {0.5}
    assert {found[f"recurrent.{name}"] for name, _ in encoder.recurrent.named_parameters()} == {0.25}
    # What the versions saved that had all layers in one module is told, and never drawn at random.
    model.save_pretrained(tmp_path), tokenizer.save_pretrained(tmp_path)
    settings = (tmp_path / "config.json").read_text()
    (tmp_path / "config.json").write_text(settings.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    with pytest.raises(ValueError, match=r"more layers than its config.json counts \(8 weights"):
        load("token-classification", ModelArguments(str(tmp_path)), LABELS, words=[], max_seq_length=8)
    (tmp_path / "config.json").write_text(settings)
    weights = load_file(tmp_path / "model.safetensors")
    old = {
        name.replace("_above.1", "").replace("_l0", "_l1") if "_above" in name else name: value
        for name, value in weights.items()
    }
    save_file(old, tmp_path / "model.safetensors", {"format": "pt"})
    with pytest.raises(ValueError, match=r"8 weights .* encoder.recurrent_above.1.bias_hh_l0; an older version"):
        load("token-classification", ModelArguments(str(tmp_path)), LABELS, words=[], max_seq_length=8)


def test_a_forget_gate_starts_open():
    layer = a_model(hidden_size=12)[0].encoder.recurrent
    gates = (layer.bias_ih_l0 + layer.bias_hh_l0).view(4, 12)  # input, forget, cell, output
    assert gates.tolist() == [[value] * 12 for value in (0.0, 1.0, 0.0, 0.0)]


def test_a_long_word_keeps_both_its_ends():
    _, tokenizer = a_model()
    (ids,) = tokenizer([["a" * 20 + "b" * 20]], is_split_into_words=True)["char_ids"]
    assert bytes(ids[0]) == b"a" * 12 + b"b" * 12
