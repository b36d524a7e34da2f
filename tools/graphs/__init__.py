"""The example graphs in workflows/, one file for each kind of model: what they hold and how they lie. No test, and nothing that
runs in ComfyUI."""
