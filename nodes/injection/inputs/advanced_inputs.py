"""The advanced settings of Inject References: folded away in the node itself, in sight in Inject Settings."""

from __future__ import annotations

from dataclasses import dataclass, replace

from comfy_api.latest import io

from ....realrag.injection.combine import MODES
from ....realrag.injection.profiles import AS_SET, FLAT, PROFILES, WORDS, preset
from ....realrag.injection.reference_settings import ReferenceSettings, effective
from .controls import ALL, APPLY_TO, BATCHES, POSITIVE, Controls, Strength
from .path_names import AUTO, PATHS


def path_inputs() -> list:
    """Which way the references go in."""
    return [
        io.Combo.Input(
            "path",
            options=PATHS,
            default=AUTO,
            optional=True,
            tooltip="auto takes the best way that the model and the connected parts allow; the report says "
            "which and why. For Flux Kontext and Qwen-Image-Edit choose reference latents.",
        ),
        io.Int.Input(
            "downsampling",
            default=3,
            min=1,
            max=5,
            optional=True,
            tooltip="Only for Flux Redux: 1 keeps every detail and drowns the prompt, 5 keeps a rough idea.",
        ),
    ]


def preset_input():
    return io.Combo.Input(
        "preset",
        options=list(WORDS),
        default=AS_SET,
        optional=True,
        tooltip="A starting point. It replaces strength, end_percent and profile.",
    )


def mixing_inputs() -> list:
    """How the references act together. Every one optional, so that graphs saved before it existed keep loading."""
    return [
        io.Combo.Input(
            "combine",
            options=list(MODES),
            default=MODES[0],
            optional=True,
            tooltip="Several references. concat: each part of the picture takes what fits best. sum: they add up. "
            "average, norm average: their mean, the latter with equal loudness. subtract: the first minus the others.",
        ),
        io.Combo.Input(
            "profile",
            options=list(PROFILES),
            default=FLAT,
            optional=True,
            tooltip="Strength over the model's blocks. linear takes style and composition alike, the same in every "
            "block. composition keeps to the early blocks (layout), style to the late ones (color and texture): "
            "experimental with real models.",
        ),
        io.String.Input(
            "custom_profile",
            default="",
            optional=True,
            tooltip="Only for the profile custom: numbers such as 0.3, 0.6, 1, spread over the blocks in order.",
        ),
        io.Combo.Input(
            "apply_to",
            options=list(APPLY_TO),
            default=POSITIVE,
            optional=True,
            tooltip="positive: the prompt alone. both: the negative prompt sees the references too, which is softer.",
        ),
        io.Combo.Input(
            "batch",
            options=list(BATCHES),
            default=ALL,
            optional=True,
            tooltip="Several pictures at once. all: each sees every reference. one per latent: the first sees the "
            "first reference, and so on; cycle: starting again where they run out.",
        ),
        io.Boolean.Input(
            "text_rows",
            default=True,
            optional=True,
            tooltip="Only for Flux InstantX: let the prompt's own words see the references, as published. Off keeps "
            "the prompt stronger.",
        ),
        io.Float.Input(
            "balance",
            default=0.0,
            optional=True,
            min=0.0,
            max=4.0,
            step=0.05,
            tooltip="Against burnt pictures: references never add more than this many times the block's own attention. "
            "0 is off; try 1.",
        ),
        io.Float.Input(
            "score_temperature",
            default=0.0,
            optional=True,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="0: every reference counts the same. Above: better matches count more, the smaller the more; try "
            "0.05.",
        ),
    ]


@dataclass(frozen=True)
class AdvancedInputs:
    """The values of these inputs. Their defaults are those of the node, so that an older graph means the same."""

    path: str = AUTO
    downsampling: int = 3
    preset: str = AS_SET
    combine: str = MODES[0]
    profile: str = FLAT
    custom_profile: str = ""
    apply_to: str = POSITIVE
    batch: str = ALL
    text_rows: bool = True
    balance: float = 0.0
    score_temperature: float = 0.0

    def controls(self, strength: Strength, family: str, references, count: int) -> Controls:
        """Everything the artist set, as one value.

        count: all references. Those beyond the retrieved ones are the artist's own, with plain settings.
        """
        settings = effective(references, self.score_temperature) if getattr(references, "items", ()) else []
        settings += [ReferenceSettings()] * (count - len(settings))
        strength = replace(strength, profile=self.profile, custom=self.custom_profile)
        if (found := preset(self.preset, family)) is not None:
            strength = replace(strength, weight=found.strength, end=found.end, profile=found.profile)
        return Controls(
            strength, tuple(settings), self.combine, self.apply_to, self.batch, self.text_rows, self.balance
        )


def describe(controls: Controls) -> list[str]:
    """The settings that differ from the defaults, for the report."""
    lines = [f"Reference {i}: {text}." for i, own in enumerate(controls.settings, 1) if (text := own.describe())]
    lines += [
        f"The mask of reference {i} is empty: it has no effect."
        for i, own in enumerate(controls.settings, 1)
        if own.mask is not None and not own.mask.any()
    ]
    changed = [f"{name} {value}" for name, value in controls.changed().items()]
    return lines + ([f"Set: {', '.join(changed)}."] if changed else [])
