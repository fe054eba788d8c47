"""A trimmed vocabulary: the same pieces for the corpus, the same hidden states."""

import pytest
import torch
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer, ElectraConfig, ElectraForMaskedLM

from finetune.arguments import DEFAULT_MODEL
from finetune.models import load_tokenizer, resolve, trim_vocabulary


def compare(before, after, texts, auto=AutoModel):
    old, new = AutoTokenizer.from_pretrained(before), AutoTokenizer.from_pretrained(after)
    first, second = auto.from_pretrained(before).eval(), auto.from_pretrained(after).eval()
    assert type(old) is type(new)
    assert len(new) == new.vocab_size == second.config.vocab_size < first.config.vocab_size
    assert second.get_input_embeddings().num_embeddings == len(new)
    for name in ("pad", "unk", "cls", "sep", "mask"):
        assert getattr(old, f"{name}_token") == getattr(new, f"{name}_token")
    for text in texts:
        assert old.tokenize(text) == new.tokenize(text)
    for i in range(0, min(len(texts), 40), 8):
        settings = {"return_tensors": "pt", "padding": True, "truncation": True, "max_length": 60}
        a, b = old(texts[i : i + 8], **settings), new(texts[i : i + 8], **settings)
        with torch.no_grad():
            assert torch.equal(first(**a)[0], second(**b)[0]) or auto is AutoModelForMaskedLM
    return old, new, first, second


def test_three_kinds_of_tokenizer(checkpoints, kind, sample_texts, tmp_path):
    corpus = sample_texts[:25]
    trim_vocabulary(str(checkpoints[kind]), corpus, tmp_path / "trimmed")
    compare(checkpoints[kind], tmp_path / "trimmed", corpus)
    old, new, first, second = compare(checkpoints[kind], tmp_path / "trimmed", corpus, AutoModelForMaskedLM)
    # The head's projection is trimmed with the embedding.
    ids, new_ids = old(corpus[0], return_tensors="pt"), new(corpus[0], return_tensors="pt")
    kept = torch.tensor([old.convert_tokens_to_ids(token) for token in new.convert_ids_to_tokens(range(len(new)))])
    with torch.no_grad():
        assert torch.allclose(first(**ids).logits[..., kept], second(**new_ids).logits, atol=1e-5)
    # A new word of known letters still has pieces.
    assert new.unk_token_id not in new(corpus[1].split()[0][::-1])["input_ids"]


def test_words_without_pieces_stay_without(checkpoints, tmp_path):
    """A WordPiece word that could not be cut must not be cut otherwise once a piece is gone."""
    corpus = ["the market and ☃ the☃ andrew☃x", "international ☃☃"]
    trim_vocabulary(str(checkpoints["wordpiece"]), corpus, tmp_path / "trimmed")
    _, new, _, _ = compare(checkpoints["wordpiece"], tmp_path / "trimmed", corpus)
    assert new.tokenize(corpus[0]).count(new.unk_token) == 3


def test_the_default_checkpoint_on_a_file(tmp_path, sample_texts):
    try:
        load_tokenizer(DEFAULT_MODEL)
    except ValueError:
        pytest.skip("needs the default checkpoint (the extra `offline`), which is not here")
    (tmp_path / "a.txt").write_text("\n".join(sample_texts))
    trim_vocabulary(DEFAULT_MODEL, tmp_path / "a.txt", tmp_path / "trimmed")
    before = resolve(DEFAULT_MODEL)
    old, new = AutoTokenizer.from_pretrained(before), AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    assert len(new) < len(old) / 5
    first, second = AutoModel.from_pretrained(before).eval(), AutoModel.from_pretrained(tmp_path / "trimmed").eval()
    settings = {"return_tensors": "pt", "padding": True}
    with torch.no_grad():
        assert torch.equal(
            first(**old(sample_texts[:9], **settings))[0], second(**new(sample_texts[:9], **settings))[0]
        )


def test_a_real_multilingual_checkpoint(xlmr_mini, shared, tmp_path):
    texts = [
        cell for line in (shared / "data/pud/pud.tsv").read_text().splitlines()[1:] for cell in line.split("\t")[1:]
    ]
    trim_vocabulary(str(xlmr_mini), texts, tmp_path / "trimmed")
    _, new, _, _ = compare(xlmr_mini, tmp_path / "trimmed", texts)
    assert len(new) < 30_000


def test_positions_stay_where_they_are(checkpoints, sample_texts, tmp_path):
    """RoBERTa counts positions from its padding id, so pieces before that stay."""
    folder = tmp_path / "moved"
    model = AutoModel.from_pretrained(checkpoints["byte-bpe"])
    tokenizer = AutoTokenizer.from_pretrained(checkpoints["byte-bpe"])
    # The same model with its padding id at 30, behind pieces that the corpus does not use.
    config = model.config
    config.pad_token_id, config.max_position_embeddings = 30, 110
    tokenizer.pad_token = tokenizer.convert_ids_to_tokens(30)
    torch.manual_seed(0)
    type(model)(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    trim_vocabulary(str(folder), sample_texts[:3], tmp_path / "trimmed")
    old, new = AutoTokenizer.from_pretrained(folder), AutoTokenizer.from_pretrained(tmp_path / "trimmed")
    first, second = AutoModel.from_pretrained(folder).eval(), AutoModel.from_pretrained(tmp_path / "trimmed").eval()
    with torch.no_grad():
        a, b = (t(sample_texts[0], return_tensors="pt") for t in (old, new))
        assert torch.equal(first(**a)[0], second(**b)[0])


def test_other_models_are_refused(tmp_path, checkpoints):
    ElectraForMaskedLM(ElectraConfig(vocab_size=500, hidden_size=16, num_hidden_layers=1)).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(checkpoints["wordpiece"]).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model type electra; only bert, roberta, xlm-roberta can be trimmed"):
        trim_vocabulary(str(tmp_path), ["a"], tmp_path / "trimmed")


@pytest.mark.parametrize(
    ("corpus", "message"),
    [(iter(["a"]), "a generator is used up"), ([], "no text in it"), ("nowhere.txt", r"nowhere\.txt: no such file")],
)
def test_what_cannot_be_trimmed(checkpoints, corpus, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        trim_vocabulary(str(checkpoints["wordpiece"]), corpus, tmp_path / "trimmed")
    assert not (tmp_path / "trimmed").exists()
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match="not empty"):
        trim_vocabulary(str(checkpoints["wordpiece"]), ["a"], tmp_path)
