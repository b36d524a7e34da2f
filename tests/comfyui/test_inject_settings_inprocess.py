"""Inject Settings: the advanced inputs of Inject References as a node, whose values replace those of the folded ones."""

from __future__ import annotations

from controls_world import added, close, execute, retrieved, steered

WAY = "flux xlabs"


def settings(world, **values):
    return world.plugin("nodes.injection.inject_settings").InjectSettings.execute(**values).result[0]


def declared(node) -> dict[str, dict]:
    """Widgets and sockets of a node by name, as the page gets them."""
    inputs = node.INPUT_TYPES()
    return {name: spec for part in ("required", "optional") for name, spec in inputs.get(part, {}).items()}


def test_its_values_act_as_the_same_ones_in_the_node_itself_do(world):
    own = dict(combine="sum", profile="ease in", balance=0.5, score_temperature=0.1)
    references = retrieved(world, 1, 2)
    close(
        added(world, WAY, steered(world, WAY, references, settings=settings(world, **own))),
        added(world, WAY, steered(world, WAY, references, **own)),
    )


def test_they_win_over_the_folded_inputs_and_leave_the_preset_to_the_node(world):
    references = retrieved(world, 1, 2)
    model, report, *_ = execute(
        world, WAY, references, settings=settings(world, combine="average"), combine="sum", balance=1.0
    ).result
    assert "combine average" in report and "balance" not in report
    close(added(world, WAY, model), added(world, WAY, steered(world, WAY, references, combine="average")))
    preset = next(
        word for word in declared(world.inject.InjectReferences)["preset"][1]["options"] if "below" not in word
    )
    with_preset = execute(world, WAY, references, settings=settings(world), preset=preset).result[1]
    assert with_preset.splitlines()[-2:] == execute(world, WAY, references, preset=preset).result[1].splitlines()[-2:]


def test_it_holds_the_folded_inputs_and_no_other_one(world):
    node = declared(world.plugin("nodes.injection.inject_settings").InjectSettings)
    inject = declared(world.inject.InjectReferences)
    advanced = {name: spec for name, spec in inject.items() if len(spec) > 1 and spec[1].get("advanced")}
    assert list(node) == list(advanced) and len(node) == 10
    for name, (kind, options) in advanced.items():
        assert node[name] == (kind, {key: value for key, value in options.items() if key != "advanced"})
    in_sight = {"model", "references", "adapter", "vae", "strength", "start_percent", "end_percent", "preset"}
    assert in_sight <= set(inject) - set(advanced)
