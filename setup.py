"""The list of packages; all else stands in pyproject.toml.

`train` is too general a name to install, so it becomes `realrag_train` there, which `packages.find` cannot say. `nodes`
is ComfyUI's own name and is never installed.
"""

from setuptools import find_packages, setup

core = find_packages(include=["realrag", "realrag.*"])
trainer = ["realrag_" + name for name in find_packages(include=["train", "train.*"])]
setup(packages=core + trainer, package_dir={"realrag": "realrag", "realrag_train": "train"})
