import math

import pytest
import torch

from realrag.encoders.reflective_head import ReflectiveHead, load_head, save_head
from realrag.errors import EncoderError


def slow_head(head, v):
    """unit(v + W2 gelu(W1 v + b1) + b2), number by number."""
    w1, b1, w2, b2 = (tensor.tolist() for tensor in (head.fc1.weight, head.fc1.bias, head.fc2.weight, head.fc2.bias))
    hidden = [sum(w * x for w, x in zip(row, v, strict=True)) + b for row, b in zip(w1, b1, strict=True)]
    hidden = [0.5 * x * (1 + math.erf(x / math.sqrt(2))) for x in hidden]
    out = [x + sum(w * h for w, h in zip(row, hidden, strict=True)) + b for x, row, b in zip(v, w2, b2, strict=True)]
    length = math.sqrt(sum(x * x for x in out))
    return [x / length for x in out]


@pytest.fixture
def head():
    torch.manual_seed(0)
    head = ReflectiveHead(6, 10, {"generator": "flux", "encoder_fingerprint": "f" * 64})
    torch.nn.init.normal_(head.fc2.weight)
    torch.nn.init.normal_(head.fc2.bias)
    return head


def test_an_untrained_head_changes_nothing():
    v = torch.nn.functional.normalize(torch.randn(5, 6), dim=-1)
    assert torch.allclose(ReflectiveHead(6, 10)(v), v, atol=1e-6)


def test_the_head_is_its_formula(head):
    v = torch.nn.functional.normalize(torch.randn(3, 6), dim=-1)
    expected = torch.tensor([slow_head(head, row) for row in v.tolist()])
    assert torch.allclose(head(v), expected, atol=1e-5)


def test_a_head_comes_back_as_it_was(head, tmp_path):
    save_head(head, tmp_path / "head.safetensors")
    again = load_head(tmp_path / "head.safetensors", 6)
    v = torch.nn.functional.normalize(torch.randn(3, 6), dim=-1)
    assert torch.equal(again(v), head(v)) and again.metadata == head.metadata


@pytest.mark.parametrize("fault", ["width", "version", "nan", "extra", "damaged"])
def test_a_head_that_does_not_fit_is_refused(head, tmp_path, fault):
    from safetensors.torch import save_file

    path = tmp_path / "head.safetensors"
    tensors = {name: tensor.detach().clone() for name, tensor in head.state_dict().items()}
    metadata = {"format": "realrag-head", "version": "1", "facts": "{}"}
    if fault == "version":
        metadata["version"] = "2"
    if fault == "nan":
        tensors["fc1.bias"][0] = float("nan")
    if fault == "extra":
        tensors["more"] = torch.zeros(1)
    save_file(tensors, path, metadata)
    if fault == "damaged":
        path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(EncoderError, match=str(path)):
        load_head(path, 7 if fault == "width" else 6)


def test_equal_heads_give_equal_files(tmp_path):
    torch.manual_seed(0)
    head = ReflectiveHead(8, 4, {"generator": "a", "seed": 1})
    for name in ("first", "second", "third", "fourth"):
        save_head(head, tmp_path / name)
    assert len({(tmp_path / name).read_bytes() for name in ("first", "second", "third", "fourth")}) == 1
    assert load_head(tmp_path / "first", 8).metadata == {"generator": "a", "seed": 1}
