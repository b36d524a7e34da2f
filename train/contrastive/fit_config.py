"""The settings of contrastive training: the section [fit] of a recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace

from realrag.errors import RealRAGError

# Mode -> the highest learning rate. Head: our choice, the upper end of what heads on cached vectors tolerate. The
# others: our choice for CLIP models, not measured on one here. Our small encoder's text tower gained more at 1e-3.
RATES = {"head": 1e-3, "text": 1e-5, "lora": 2e-4, "full": 5e-6}
PRECISIONS = ("auto", "bf16", "fp32")
ADDED = ("precision",)  # fields that came after 0.1.0
# Of a run whose epochs and batch are 0. Ten epochs are the paper's, the others our choices.
EPOCHS, STEPS, SMALLEST, LARGEST = 10, 400, 32, 512


@dataclass(frozen=True)
class FitConfig:
    """The settings, each default marked with its source.

    mode: "head" (a small MLP on the photos' vectors), "text" (the text tower), "lora" (low-rank updates of the vision
    tower) or "full" (the whole vision tower). Everything else stays frozen.
    """

    mode: str = "head"  # paper: one MLP on the vision tower, the text tower frozen
    epochs: int = 0  # our choice: 0 suits the number of photos (`sized`); paper: checkpoints up to 10
    batch: int = 0  # our choice: 0 suits the number of photos
    rate: float = 0.0  # our choice: highest learning rate of AdamW; 0 takes that of the mode (RATES)
    weight_decay: float = 0.01  # our choice; none on biases and temperature
    warm_up: float = 0.05  # our choice: fraction of all steps, then a cosine to zero
    clip: float = 1.0  # our choice: largest norm of the gradient
    hidden: int = 0  # our choice: width of the head, 0 for the encoder's own (paper: "one simple MLP layer")
    seed: int = 0  # our choice: one of several; the paper shows one run
    held_out: float = 0.0  # our choice: fraction of each class's photos held out, to measure R@1
    patience: int = 0  # our choice: epochs without a better held-out R@1 before stopping; 0 goes to the end
    refresh: int = 0  # our choice: epochs between minings with the current head (ANCE); 0 mines once
    grad_chunk: int = 0  # our choice: rows encoded at a time (gradient caching); 0 for all
    lora_rank: int = 8  # our choice: 8 to 16 (arXiv 2106.09685 found little beyond)
    lora_alpha: float = 16.0  # our choice: the update is scaled by alpha / rank
    augment: bool = False  # our choice: crop and mirror photos slightly where the vision tower is trained

    precision: str = "auto"  # our choice: towers compute in bf16 on a GPU and fp32 elsewhere; or in the one named

    def __post_init__(self) -> None:
        if self.precision not in PRECISIONS:
            raise RealRAGError(f"precision is {self.precision!r}; it is one of {', '.join(PRECISIONS)}.")
        if self.mode not in RATES:
            raise RealRAGError(f"The mode {self.mode!r} is not known; it is one of {', '.join(RATES)}.")
        if min(self.epochs, self.batch) < 0 or not 0 <= self.held_out < 1 or self.rate < 0:
            raise RealRAGError(
                f"{self}: epochs and batch are 0 or more, held_out lies from 0 to below 1, rate is 0 or more."
            )
        if self.lora_rank < 1 or self.lora_alpha <= 0:
            raise RealRAGError(f"lora_rank is {self.lora_rank} and lora_alpha {self.lora_alpha}; both are above 0.")
        if self.refresh and self.mode != "head":
            raise RealRAGError(
                f"refresh mines again with the current head, and the mode {self.mode!r} has none. Set refresh to 0, or run "
                "`imagine` and `mine` again with the tuned encoder."
            )
        if self.augment and self.mode not in ("lora", "full"):
            raise RealRAGError(f"augment changes photos, and the mode {self.mode!r} opens none. Set it to false.")

    @property
    def highest_rate(self) -> float:
        return self.rate or RATES[self.mode]

    def sized(self, pairs: int) -> FitConfig:
        """With numbers in place of 0 for epochs and batch, for so many photos that have a prompt.

        A library of 20,480 photos or more gets batches of LARGEST and the paper's ten epochs. A smaller one gets batches of
        an eighth of its photos, at least SMALLEST, of equal size so that none is dropped, and epochs enough for STEPS
        steps: with ten epochs of 512, anything below 1,024 photos would be trained for ten steps."""
        batch = self.batch
        if not batch:
            wanted = min(LARGEST, max(SMALLEST, pairs // 8))
            batch = max(1, pairs // max(1, round(pairs / wanted)))
        steps = max(1, pairs // max(1, min(batch, pairs)))
        epochs = self.epochs or max(EPOCHS, -(-STEPS // steps))
        return replace(self, batch=batch, epochs=epochs)
