"""Masks on the generator's own grid of tokens, against counting small squares."""

import pytest
import torch

from realrag.injection.token_grid import Cut, token_mask


@pytest.mark.parametrize("height, width", [(4, 6), (5, 9), (1, 1), (7, 2), (64, 63)])
@pytest.mark.parametrize("shape", [(8, 12), (3, 5), (40, 72), (1, 1)])
def test_a_token_holds_the_mean_of_its_own_part_of_the_picture(height, width, shape):
    mask = torch.rand(shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = token_mask(mask, height, width)
    rows, columns = -(-height // 2), -(-width // 2)
    assert found.shape == (rows * columns,)
    # Slow twin: repeat both ways onto one fine grid that mask pixels and latent pixels both divide.
    if shape[0] * height * shape[1] * width > 200_000:
        return
    fine = mask.repeat_interleave(height, 0).repeat_interleave(width, 1)
    for row in range(rows):
        for column in range(columns):
            part = fine[
                2 * row * shape[0] : min(2 * row + 2, height) * shape[0],
                2 * column * shape[1] : min(2 * column + 2, width) * shape[1],
            ]
            assert found[row * columns + column].item() == pytest.approx(part.mean().item(), abs=1e-6)


def test_a_straight_edge_stays_where_it_was_drawn_with_odd_sides():
    mask = torch.zeros(50, 90)
    mask[:, :40] = 1  # the left four of nine latent columns: exactly two tokens of five
    assert token_mask(mask, 5, 9).reshape(3, 5).tolist() == [[1, 1, 0, 0, 0]] * 3


def test_values_outside_0_to_1_are_clamped():
    assert token_mask(torch.tensor([[-1.0, 3.0]]), 2, 4).tolist() == [0, 1]


def test_a_part_of_the_latent_gets_its_part_of_the_mask():
    mask = torch.rand(30, 22, generator=torch.Generator().manual_seed(2))
    whole = token_mask(mask, 12, 8).reshape(6, 4)
    part = token_mask(mask, 6, 4, cut=Cut((12, 8), (4, 2)))
    torch.testing.assert_close(part.reshape(3, 2), whole[2:5, 1:3])
    torch.testing.assert_close(token_mask(mask, 12, 8, cut=Cut((12, 8), (0, 0))), whole.flatten())


def test_a_part_that_begins_between_two_tokens_has_a_grid_of_its_own():
    mask = torch.arange(9.0)[None] / 8  # one pixel for each column of the latent
    assert token_mask(mask, 1, 4, cut=Cut((1, 9), (0, 3))).tolist() == pytest.approx([3.5 / 8, 5.5 / 8])
