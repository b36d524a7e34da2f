"""The miniature models by themselves: sizes, the identity they start as, files, sampling."""

import itertools

import pytest
import torch
from tiny_miniature import inputs

from realrag.errors import RealRAGError
from realrag.miniature.autoencoder import FORMAT, VERSION, Autoencoder, load_autoencoder
from realrag.miniature.flux import Flux, FluxConfig
from realrag.miniature.generator import load_generator, save_generator
from realrag.miniature.sampling import sample, shifted, sigmas
from realrag.miniature.sd3 import SD3, SD3Config, grid_embedding

SMALL = {
    "sd3": lambda: SD3(SD3Config(depth=2, context=24, pooled=20, grid=12)),
    "flux": lambda: Flux(FluxConfig(width=128, double=1, single=2, context=24, pooled=20)),
}


@pytest.fixture(params=sorted(SMALL))
def model(request):
    torch.manual_seed(0)
    model = SMALL[request.param]()
    for weight in model.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    return model.eval().requires_grad_(False)


def test_the_shipped_sizes_have_nine_million_parameters():
    with torch.device("meta"):
        counts = [sum(weight.numel() for weight in net().parameters()) / 1e6 for net in (SD3, Flux)]
    assert all(8.5 < count < 10.5 for count in counts), counts


@pytest.mark.parametrize("name", sorted(SMALL))
def test_an_untrained_model_says_nothing_and_yet_learns(name):
    model = SMALL[name]()
    x, *rest = inputs()
    out = model(x, *rest)
    assert not out.any()
    (out - x).square().mean().backward()
    assert model.final_layer.linear.weight.grad.any()


def test_rows_of_a_batch_do_not_touch_each_other(model):
    x, t, states, pooled = inputs()
    together = model(x, t, states, pooled)
    for row in range(2):
        at = slice(row, row + 1)
        assert torch.allclose(model(x[at], t[at], states[at], pooled[at])[0], together[row], atol=1e-5)


def test_every_input_counts(model):
    given = inputs()
    plain = model(*given)
    for place in range(4):
        other = list(given)
        other[place] = given[place].flip(0)
        assert (model(*other) - plain).abs().max() > 1e-4


def test_the_order_of_text_states_does_not_count_but_the_place_of_a_patch_does(model):
    x, t, states, pooled = inputs()
    plain = model(x, t, states, pooled)
    assert torch.allclose(model(x, t, states.flip(1), pooled), plain, atol=1e-5)
    rolled = model(x.roll(2, dims=3), t, states, pooled)
    assert (rolled - plain.roll(2, dims=3)).abs().max() > 1e-4


def test_pictures_need_not_be_square(model):
    assert model(*inputs(height=12, width=4)).shape == (2, 16, 12, 4)


def test_the_grid_gives_every_patch_a_place_of_its_own():
    places = grid_embedding(256, 16)[0]
    assert places.shape == (256, 256) and torch.cdist(places, places).add(torch.eye(256) * 9).min() > 0.1
    assert torch.equal(places[:16, 128:], places[:1, 128:].expand(16, -1))  # one row


def test_noise_levels_go_down_from_one_to_zero():
    for shift in (1.0, 3.0):
        levels = sigmas(9, shift)
        assert levels[0] == 1 and levels[-1] == 0 and (levels.diff() < 0).all() and len(levels) == 10
    assert shifted(torch.tensor(0.5), 3.0) == 0.75


def test_sampling_finds_the_latent_a_perfect_model_points_to():
    target = torch.randn(2, 16, 4, 4)

    class Perfect(torch.nn.Module):
        family = "sd3"

        def forward(self, x, t, states, pooled):
            return (x - target[: len(x)].repeat(len(x) // 2, 1, 1, 1)) / t[:, None, None, None]

    texts = torch.zeros(2, 1, 1), torch.zeros(2, 1)
    for cfg in (1.0, 4.0):
        assert torch.allclose(
            sample(Perfect(), torch.randn(2, 16, 4, 4), texts, texts, steps=3, cfg=cfg), target, atol=1e-5
        )


def test_guidance_is_the_plain_formula(model):
    x, _, states, pooled = inputs()
    _, _, other, other_pooled = inputs(seed=4)
    levels, slow = sigmas(3, 3.0 if model.family == "sd3" else 1.0), x
    for now, after in itertools.pairwise(levels):
        yes, no = (
            model(slow, now.expand(2), states, pooled),
            model(slow, now.expand(2), other[:1].expand(2, -1, -1), other_pooled[:1].expand(2, -1)),
        )
        slow = slow + (after - now) * (no + 2.5 * (yes - no))
    found = sample(model, x, (states, pooled), (other[:1], other_pooled[:1]), steps=3, cfg=2.5)
    assert torch.allclose(found, slow, atol=1e-4)


def test_a_generator_file_comes_back_and_others_are_refused(model, tmp_path):
    path = tmp_path / "small.safetensors"
    save_generator(path, model, model.state_dict(), {"steps": 3})
    first = path.read_bytes()
    save_generator(path, model, model.state_dict(), {"steps": 3})
    assert path.read_bytes() == first
    back = load_generator(path)
    assert type(back) is type(model) and back.config == model.config
    given = inputs()
    assert torch.allclose(back(*given), model(*given), atol=2e-2)
    path.write_bytes(first[:-100])
    with pytest.raises(RealRAGError, match="is damaged"):
        load_generator(path)
    with pytest.raises(RealRAGError, match="cannot be read"):
        load_generator(tmp_path / "none.safetensors")


def test_an_autoencoder_file_comes_back_and_others_are_refused(tmp_path):
    from safetensors.torch import save_file

    path, model = tmp_path / "ae.safetensors", Autoencoder()
    words = {"format": FORMAT, "version": VERSION}
    save_file({name: value.half() for name, value in model.state_dict().items()}, path, words)
    x = torch.rand(1, 3, 16, 24)
    back = load_autoencoder(path)
    assert back.encode(x).shape == (1, 16, 2, 3) and back.decode(back.encode(x)).shape == x.shape
    assert torch.allclose(back.encode(x), model.encode(x), atol=1e-2)
    save_file({"a": torch.zeros(1)}, path, words)
    with pytest.raises(RealRAGError, match="does not hold"):
        load_autoencoder(path)
    save_file({"a": torch.zeros(1)}, path, {"format": "other"})
    with pytest.raises(RealRAGError, match=r"expected .realrag-miniature-autoencoder"):
        load_autoencoder(path)
