"""Inject Settings: the advanced inputs of Inject References as a node of their own."""

from __future__ import annotations

from comfy_api.latest import io

from ..compat import supported_keywords
from ..input_check import checked
from ..sockets import SettingsSocket
from .inputs import advanced_inputs
from .inputs.advanced_inputs import AdvancedInputs


class InjectSettings(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="RealRAG_InjectSettings",
            display_name="Inject Settings",
            category="RealRAG",
            description="The advanced inputs of Inject References in a node of their own: to keep them in sight, or to give "
            "several Inject References the same ones.",
            inputs=[*advanced_inputs.path_inputs(), *advanced_inputs.mixing_inputs()],
            outputs=[
                SettingsSocket.Output(
                    display_name="settings",
                    tooltip="For Inject References: replaces all of its advanced inputs. strength, start_percent, end_percent "
                    "and preset stay with Inject References.",
                )
            ],
            **supported_keywords(
                io.Schema, search_aliases=["advanced", "profile", "ipadapter advanced", "reference settings"]
            ),
        )

    @classmethod
    @checked
    def execute(cls, **values) -> io.NodeOutput:
        return io.NodeOutput(AdvancedInputs(**values))
