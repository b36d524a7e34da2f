"""SigLIP's own kind of tokenizer, a sentencepiece model beside the weights, gives the ids that sentencepiece gives."""

import io

import pytest
import torch
from tiny_encoders import write_tiny_transformers

from realrag.encoders.load import load_encoder
from realrag.errors import EncoderError

sentencepiece = pytest.importorskip("sentencepiece")

CONTEXT, END = 12, 1  # of the tiny model; SigLIP ends and pads with </s>
TEXTS = ["a red apple", "A Photo of a 1994 AUDI, on the table!", "", "dog-dog; cat's", "crème brûlée", "x " * 40]
PLAIN = ["a red apple", "a photo of a 1994 audi on the table", "", "dogdog cats", "crème brûlée", "x " * 40]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("siglip")
    write_tiny_transformers(made, "siglip")
    for name in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (made / name).unlink(missing_ok=True)
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([*PLAIN[:2], "dog cat red table apple photo", "a green apple and a blue cat"] * 50),
        model_writer=model, vocab_size=36, model_type="unigram", pad_id=0, eos_id=END, unk_id=2, bos_id=-1,
        hard_vocab_limit=False, minloglevel=2,
    )  # fmt: skip
    (made / "spiece.model").write_bytes(model.getvalue())
    return made


def wanted(folder) -> torch.Tensor:
    library = sentencepiece.SentencePieceProcessor(model_file=str(folder / "spiece.model"))
    rows = [[*library.encode(" ".join(text.split()))[: CONTEXT - 1], END] for text in PLAIN]
    return torch.tensor([row + [END] * (CONTEXT - len(row)) for row in rows])


def test_its_ids_are_those_of_sentencepiece(folder):
    encoder = load_encoder(str(folder))
    assert encoder.has_text_tower
    assert torch.equal(encoder._tokens(TEXTS), wanted(folder))


def test_a_bundle_carries_it(folder, tmp_path):
    encoder = load_encoder(str(folder))
    encoder.save_pretrained(tmp_path / "saved")
    again = load_encoder("a name", folder=tmp_path / "saved", offline=True)
    assert torch.equal(again._tokens(TEXTS), wanted(folder))
    assert again.fingerprint == encoder.fingerprint
    assert torch.equal(again.encode_texts(TEXTS), encoder.encode_texts(TEXTS))


def test_they_are_transformers_own(folder):
    pytest.importorskip("google.protobuf")
    import transformers

    theirs = transformers.SiglipTokenizer.from_pretrained(folder, local_files_only=True)
    expected = theirs(TEXTS, padding="max_length", truncation=True, max_length=CONTEXT, return_tensors="pt").input_ids
    assert torch.equal(load_encoder(str(folder))._tokens(TEXTS), expected)


@pytest.mark.parametrize("content", [b"", b"no model", b"\x0a\x05\x0a\x03abc"])
def test_a_damaged_one_is_refused_in_a_sentence(folder, tmp_path, content):
    for name in ("model.safetensors", "config.json", "preprocessor_config.json"):
        if (folder / name).is_file():
            (tmp_path / name).write_bytes((folder / name).read_bytes())
    (tmp_path / "spiece.model").write_bytes(content)
    with pytest.raises(EncoderError, match=r"spiece\.model.*Download it again"):
        load_encoder(str(tmp_path))
