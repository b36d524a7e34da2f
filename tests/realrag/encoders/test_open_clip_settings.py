"""What open_clip's tags say of a model reaches it, however its weights are found; and old bundles keep their meaning."""

import json
import logging

import pytest
import torch
from made_photos import photo_bytes
from PIL import Image
from safetensors.torch import save_file
from tiny_encoders import TINY, add_architecture

from realrag.bundle.bundle import Bundle
from realrag.encoders import open_clip as encoders
from realrag.encoders import open_clip_settings as settings
from realrag.encoders.load import load_encoder
from realrag.errors import AdapterError, EncoderError
from realrag.indexing.build import build
from realrag.retriever import Retriever

HALF = [0.5, 0.5, 0.5]


class Asked(Exception):
    """Stands in for the model that would be built."""

    def __init__(self, options):
        super().__init__("asked")
        self.options = options


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """name -> what `open_clip.create_model` is asked for, without weights."""
    import open_clip

    file = tmp_path / "weights.safetensors"
    file.write_bytes(b"")

    def create_model(name, **options):
        raise Asked({"name": name, **options})

    monkeypatch.setattr(encoders, "weights_of_tag", lambda *given: file)
    monkeypatch.setattr(open_clip, "create_model", create_model)

    def ask(name):
        with pytest.raises(EncoderError) as caught:
            encoders.OpenClipEncoder(name)
        return caught.value.__cause__.options

    return ask


def test_every_tag_reaches_the_model_that_is_built_for_it(asked, caplog, tmp_path):
    import open_clip

    assert len(open_clip.list_pretrained()) > 150
    for arch, tag in open_clip.list_pretrained():
        told, config = open_clip.get_pretrained_cfg(arch, tag), open_clip.get_model_config(arch)
        for name in (f"{arch}:{tag}", f"{arch}:{tag}={tmp_path / 'weights.safetensors'}"):
            options = asked(name)
            assert options["quick_gelu"] == bool(told.get("quick_gelu", config.get("quick_gelu"))), name
            for key in ("mean", "std", "interpolation", "resize_mode"):
                assert options["force_preprocess_cfg"][key] == told[key], name
    assert "does not know" not in caplog.text, "open_clip's tags say something new"


def test_a_file_without_tag_takes_what_all_tags_of_its_architecture_say_or_asks(asked, tmp_path):
    import open_clip

    file, kinds = tmp_path / "weights.safetensors", {True: 0, False: 0}
    for arch in sorted({arch for arch, _ in open_clip.list_pretrained()}):
        config, tags = open_clip.get_model_config(arch), open_clip.list_pretrained_tags_by_model(arch)
        told = [open_clip.get_pretrained_cfg(arch, tag) for tag in tags]
        ways = {
            (bool(each.get("quick_gelu", config.get("quick_gelu"))), *map(str, (each[key] for key in sorted(each) if key in
             ("mean", "std", "interpolation", "resize_mode")))) for each in told
        }  # fmt: skip
        kinds[len(ways) == 1] += 1
        if len(ways) == 1:
            options = asked(f"{arch}:{file}")
            assert (
                options["quick_gelu"] == next(iter(ways))[0]
                and options["force_preprocess_cfg"]["std"] == told[0]["std"]
            )
        else:
            with pytest.raises(EncoderError, match=rf"trained in {len(ways)} ways.*{arch}:TAG=FILE"):
                encoders.OpenClipEncoder(f"{arch}:{file}")
    assert kinds[True] > 50 and kinds[False] >= 5


def test_what_differs_between_the_tags_is_named_with_the_cure(asked, tmp_path):
    with pytest.raises(EncoderError) as caught:
        encoders.OpenClipEncoder(f"ViT-L-14:{tmp_path / 'weights.safetensors'}")
    message = str(caught.value)
    assert "QuickGELU" in message and "openai" in message and "mean (0.5, 0.5, 0.5)" in message and len(message) < 900
    with pytest.raises(EncoderError, match=r"no file '/nowhere\.bin'"):
        encoders.OpenClipEncoder("ViT-L-14:openai=/nowhere.bin")


@pytest.mark.parametrize("name, quick", [("ViT-B-32:openai", True), ("ViT-B-32:laion2b_s34b_b79k", False),
                                         ("ViT-B-32-quickgelu:openai", True), ("RN50:openai", True)])  # fmt: skip
def test_the_towers_themselves_have_the_activation_of_the_tag(name, quick, asked):
    import open_clip

    arch, options = name.partition(":")[0], asked(name)
    config = open_clip.get_model_config(arch) | {"quick_gelu": options["quick_gelu"]}
    with torch.device("meta"):
        model = open_clip.CLIP(**config)
    assert (type(model.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU") == quick


# A tiny architecture with a tag


@pytest.fixture
def tiny_tag(tmp_path, monkeypatch):
    """realrag-test-tagged:quick, trained with QuickGELU, its pictures squashed; its architecture does not say so."""
    import open_clip

    file = tmp_path / "models" / "realrag-test-tagged.json"
    file.parent.mkdir()
    file.write_text(json.dumps(TINY))
    add_architecture(monkeypatch, file)
    torch.manual_seed(0)
    weights = tmp_path / "tagged.safetensors"
    save_file(
        {k: v.contiguous() for k, v in open_clip.create_model("realrag-test-tagged").state_dict().items()}, weights
    )
    tag = {
        "file": str(weights),
        "quick_gelu": True,
        "mean": HALF,
        "std": HALF,
        "interpolation": "bicubic",
        "resize_mode": "squash",
    }
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "realrag-test-tagged", {"quick": tag})
    return weights


def legacy(encoder):
    """The manifest's entry of this encoder as earlier versions wrote it."""
    entry = encoder.describe() | {"fingerprint": encoder.plain_fingerprint}
    return {key: value for key, value in entry.items() if key != "configuration"}


def as_it_was(name="realrag-test-tagged:quick"):
    return load_encoder(name, made_with={"fingerprint": "0" * 64, "name": name})


@pytest.mark.parametrize(
    "form", ["realrag-test-tagged:quick", "realrag-test-tagged:quick={}", "realrag-test-tagged:{}"]
)
def test_a_tag_a_file_with_it_and_a_file_alone_are_one_encoder(form, tiny_tag):
    encoder, expected = load_encoder(form.format(tiny_tag)), load_encoder("realrag-test-tagged:quick")
    assert type(encoder.towers.transformer.resblocks[0].mlp.gelu).__name__ == "QuickGELU"
    assert (encoder.preprocess.mode, encoder.preprocess.mean) == ("squash", (0.5, 0.5, 0.5))
    assert encoder.fingerprint == expected.fingerprint and encoder.configuration == {"activation": "quick_gelu"}


def test_the_fingerprint_changes_with_the_activation_and_is_the_old_one_without(tiny_tag):
    right, wrong = load_encoder("realrag-test-tagged:quick"), as_it_was()
    assert right.weights_sha256 == wrong.weights_sha256 and right.preprocess == wrong.preprocess
    texts = ["a red apple"]
    assert not torch.allclose(right.encode_texts(texts), wrong.encode_texts(texts), atol=1e-6)
    assert len({right.fingerprint, wrong.fingerprint}) == len({right.image_fingerprint, wrong.image_fingerprint}) == 2
    assert wrong.fingerprint == wrong.plain_fingerprint == right.plain_fingerprint
    assert wrong.adapter_sha256 == wrong.weights_sha256 != right.adapter_sha256
    assert not right.fault and "GELU in place of QuickGELU" in wrong.fault


def test_a_saved_quickgelu_encoder_comes_back_as_itself(tiny_tag, tmp_path):
    encoder = load_encoder("realrag-test-tagged:quick")
    encoder.save_pretrained(tmp_path / "saved")
    again = load_encoder("x:y", folder=tmp_path / "saved", offline=True)
    assert again.fingerprint == encoder.fingerprint
    assert torch.equal(again.encode_texts(["a cat"]), encoder.encode_texts(["a cat"]))


@pytest.mark.slow
def test_a_bundle_made_with_the_wrong_activation_is_named_as_such_and_asked_as_it_was_made(
    tiny_tag, tmp_path, monkeypatch, caplog
):
    photos = tmp_path / "photos"
    photos.mkdir()
    for seed in range(3):
        (photos / f"{seed}.jpg").write_bytes(photo_bytes((40 + 80 * seed, 90, 30), seed, (40, 30)))
    wrong, right = as_it_was(), load_encoder("realrag-test-tagged:quick")
    with monkeypatch.context() as patch:
        entry = legacy(wrong)
        patch.setattr(wrong, "describe", lambda: entry)
        build(photos, tmp_path / "old", wrong)
    assert "configuration" not in Bundle(tmp_path / "old").manifest.encoder
    with caplog.at_level(logging.WARNING):
        retriever = Retriever.open(tmp_path / "old")
    assert "GELU in place of QuickGELU" in caplog.text and "index again" in caplog.text
    first = Image.open(photos / "0.jpg")
    assert retriever.search(image=first, k=1).items[0].score == pytest.approx(1, abs=1e-2)
    for refused in (
        lambda: Retriever.open(tmp_path / "old", encoder=right),
        lambda: build(photos, tmp_path / "old", right),
    ):
        with pytest.raises(EncoderError, match=r"GELU in place of QuickGELU.*Index again, or keep asking"):
            refused()
    build(photos, tmp_path / "new", right)
    caplog.clear()
    assert Retriever.open(tmp_path / "new").encoder.fingerprint == right.fingerprint and not caplog.text
    with pytest.raises(EncoderError, match=r"QuickGELU in place of GELU\. Index again"):
        Retriever.open(tmp_path / "new", encoder=wrong)


@pytest.mark.slow
def test_an_old_bundle_of_an_architecture_that_says_quickgelu_was_right_and_stays_valid(tiny_tag, monkeypatch):
    import open_clip

    quick = open_clip.get_model_config("realrag-test-tagged") | {"quick_gelu": True}
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "realrag-test-tagged-quickgelu", quick)
    tags = open_clip.pretrained._PRETRAINED["realrag-test-tagged"]
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "realrag-test-tagged-quickgelu", tags)
    named, mended, wrong = (
        load_encoder("realrag-test-tagged-quickgelu:quick"),
        load_encoder("realrag-test-tagged:quick"),
        as_it_was(),
    )
    assert named.fingerprint == mended.fingerprint
    assert (
        named.is_encoder_of(legacy(named))
        and mended.is_encoder_of(legacy(named))
        and not wrong.is_encoder_of(legacy(named))
    )
    assert wrong.is_encoder_of(legacy(wrong)) and not mended.is_encoder_of(legacy(wrong))
    assert as_it_was("realrag-test-tagged-quickgelu:quick").fingerprint == named.fingerprint


def test_an_old_bundle_with_the_wrong_preprocessing_is_named_as_such(tiny_tag):
    encoder = load_encoder("realrag-test-tagged:quick")
    entry = legacy(encoder) | {"fingerprint": "0" * 64}
    entry["preprocess"] = entry["preprocess"] | {"mode": "crop", "mean": [0.1, 0.2, 0.3]}
    assert not encoder.accepts_vectors_of(entry)
    said = encoder.difference(entry)
    assert "mode crop in place of squash" in said and "mean [0.1, 0.2, 0.3] in place of [0.5, 0.5, 0.5]" in said


def test_an_adapter_trained_on_the_wrong_activation_names_it(tiny_tag):
    from realrag.adapters.spec import AdapterSpec

    right, wrong = load_encoder("realrag-test-tagged:quick"), as_it_was()
    spec = AdapterSpec("flux-xlabs", "an adapter", "Flux", 64, 2, 8, "tagged", 24, "image_embeds", True, 4,
                       encoder_sha256=wrong.adapter_sha256)  # fmt: skip
    spec.check_encoder(wrong.adapter_sha256, wrong.weights_sha256)
    with pytest.raises(AdapterError, match="GELU in place of QuickGELU"):
        spec.check_encoder(right.adapter_sha256, right.weights_sha256)


def test_a_model_that_open_clip_does_not_name_has_its_configuration_in_its_fingerprint(tiny_clip, tmp_path):
    import shutil

    encoder = load_encoder(str(tiny_clip))
    folder = shutil.copytree(tiny_clip, tmp_path / "other")
    content = json.loads((folder / "open_clip_config.json").read_text())
    content["model_cfg"]["vision_cfg"]["head_width"] = 8  # the same shapes, another function
    (folder / "open_clip_config.json").write_text(json.dumps(content))
    other = load_encoder(str(folder))
    assert other.weights_sha256 == encoder.weights_sha256 and other.fingerprint != encoder.fingerprint
    assert encoder.is_encoder_of(legacy(encoder) | {"name": encoder.name})


def test_every_named_architecture_keeps_the_fingerprint_it_had():
    import open_clip

    for arch in open_clip.list_models():
        config = open_clip.get_model_config(arch)
        assert settings.identity(open_clip, config) == (
            {"activation": "quick_gelu"} if config.get("quick_gelu") else {}
        )


def test_the_shipped_encoder_and_library_keep_their_fingerprint():
    from realrag.retriever import shipped_bundle

    encoder = load_encoder()
    assert encoder.fingerprint == encoder.plain_fingerprint == Bundle(shipped_bundle()).manifest.encoder["fingerprint"]
    assert "configuration" not in encoder.describe()
