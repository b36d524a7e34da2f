"""A batch of random unit vectors and a random head, for the self-reflective loss."""

import torch
from torch import Tensor

from realrag.encoders.reflective_head import ReflectiveHead
from realrag_train.contrastive.loss import LossConfig, contrastive_loss


def made(seed=0, b=7, d=5, k=2, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)

    def unit(*shape):
        return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=dtype), dim=-1)

    present = torch.rand(b, k, generator=generator) > 0.3
    present[0] = False  # a prompt without any reflective negative
    return unit(b, d), unit(b, d), torch.tensor([0, 1, 0, 2, 1, 0, 3])[:b], unit(b, k, d), present


def random_head():
    torch.manual_seed(1)
    head = ReflectiveHead(5, 6).double()
    torch.nn.init.normal_(head.fc2.weight)
    return head


def half_of_the_loss(rank: int, config: LossConfig) -> list[Tensor]:
    """Loss and gradients of the head's weights on rows 3 rank .. 3 rank + 2 of `made`."""
    queries, photos, classes, negatives, present = (x[3 * rank : 3 * rank + 3] for x in made())
    head = random_head()
    loss = contrastive_loss(queries, head(photos), config, classes=classes, negatives=head(negatives), present=present)
    loss.backward()
    return [loss.detach(), *(weight.grad for weight in head.parameters())]
