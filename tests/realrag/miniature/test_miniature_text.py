"""What a miniature model reads of a prompt."""

import pytest
import torch

from realrag.encoders.small import SMALL_FILE
from realrag.encoders.small_net import TextTower, load_small_encoder, pieces, tokens_of, words
from realrag.miniature.text import LENGTH, encode_prompts


@pytest.fixture(scope="module")
def text():
    return load_small_encoder(SMALL_FILE).text


def test_states_are_the_salience_weighted_means_of_each_words_pieces(text):
    prompt = "Fresh ginger, on a table"
    states, pooled = encode_prompts(text, [prompt])
    expected, mean, total = [], 0, 0
    for word in words(prompt):
        numerator, denominator = 0, 0
        for piece in pieces(word):
            (token,) = [tokens_of(word, 16384)[pieces(word).index(piece)]]
            weight = text.salience.weight[token].exp()
            numerator, denominator = numerator + weight * text.embedding.weight[token], denominator + weight
        expected.append(numerator / denominator)
        mean, total = mean + numerator, total + denominator
    for found, wanted in zip(states[0], [mean / total, *expected], strict=False):
        assert torch.allclose(found, wanted / wanted.pow(2).mean().sqrt(), atol=1e-5)
    assert states.shape == (1, LENGTH, 96) and not states[0, 6:].any()
    assert torch.allclose(pooled.pow(2).mean(1), torch.ones(1), atol=1e-5)


def test_the_pooled_vector_points_where_the_tower_does(text):
    prompts = ["granny smith apple", "a carton of oat milk"]
    tokens = [tokens_of(prompt, 16384) for prompt in prompts]
    padded = torch.tensor([row + [0] * (max(map(len, tokens)) - len(row)) for row in tokens])
    assert torch.cosine_similarity(encode_prompts(text, prompts)[1], text(padded)).min() > 0.99999


def test_a_batch_gives_what_its_prompts_give_alone(text):
    prompts = ["", "pears", "red bell pepper on a table"]
    together = encode_prompts(text, prompts)
    for row, prompt in enumerate(prompts):
        for many, one in zip(together, encode_prompts(text, [prompt]), strict=True):
            assert torch.allclose(many[row], one[0], atol=1e-5)


def test_the_empty_prompt_has_zero_states_and_every_word_counts_once(text):
    states, pooled = encode_prompts(text, ["", "..."])
    assert not states.any()
    assert pooled.isfinite().all()
    torch.testing.assert_close(pooled[0], pooled[1])
    assert torch.equal(encode_prompts(text, ["kiwi kiwi Kiwi"])[0], encode_prompts(text, ["kiwi"])[0])


def test_a_long_prompt_keeps_its_heaviest_words_in_order():
    torch.manual_seed(0)
    tower = TextTower(4096, 8, 4)
    torch.nn.init.normal_(tower.salience.weight)
    prompt = [f"word{'x' * n}" for n in range(20)]
    states, _ = encode_prompts(tower, [" ".join(prompt)])
    weight = {word: sum(tower.salience.weight[t].exp().item() for t in tokens_of(word, 4096)) for word in prompt}
    kept = sorted(sorted(prompt, key=weight.get)[-(LENGTH - 1) :], key=prompt.index)
    alone, _ = encode_prompts(tower, kept)
    assert torch.allclose(states[0, 1:], alone[:, 1], atol=1e-5)
