"""What a maintainer runs once, from a checkout: not installed, and not in the pack of ComfyUI's registry.

`python -m train` finds these files as its sub-package `tools` (see train/maintainer_tools.py).
"""
