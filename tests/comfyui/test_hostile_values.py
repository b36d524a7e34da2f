"""Some of the hostile values through every input of every node; `python tests/comfyui/attack_nodes.py` gives all."""

from attack_nodes import Attack
from comfy_server import Server


def test_after_a_hostile_value_in_any_input_the_next_prompt_runs(server: Server):
    attack = Attack(server, every=61)
    attack.run()
    assert not attack.raw, dict(attack.raw)
    assert min(attack.outcomes[kind] for kind in ("refused", "refused in a sentence", "ran")) > 5, attack.outcomes
