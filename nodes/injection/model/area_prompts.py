"""Area prompts: core hands the model a part of the latent and does not say which; here the call is told."""

from __future__ import annotations

from ....realrag.injection.token_grid import Cut

KEY = "realrag areas"


def tell_areas(executor, model, conds, x_in, timestep, model_options):
    """The wrapper round each step's prompts: the area of each goes along, by the name that core gives every entry."""
    entries = [entry for prompts in conds for entry in prompts or ()]
    areas = {entry["uuid"]: entry["area"] for entry in entries if len(entry.get("area") or ()) == 4}
    if areas:
        whole = tuple(x_in.shape[2:])
        cuts = {name: Cut(whole, (int(area[2]), int(area[3]))) for name, area in areas.items()}
        options = {**model_options.get("transformer_options", {}), KEY: cuts}
        model_options = {**model_options, "transformer_options": options}
    return executor(model, conds, x_in, timestep, model_options)


def cuts_of(options: dict) -> list[Cut | None]:
    """For each prompt of a model call its part of the latent, None for all of it."""
    cuts = options.get(KEY, {})
    return [cuts.get(name) for name in options.get("uuids", [None] * len(options.get("cond_or_uncond", [0])))]
