"""web/*.js keeps the types in its comments, as TypeScript checks them: skipped where there is no `tsc`."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TSC = os.environ.get("TSC") or shutil.which("tsc")
FLAGS = "--allowJs --checkJs --noEmit --strict --target es2022 --module es2022 --moduleResolution bundler".split()


@pytest.mark.slow
@pytest.mark.skipif(not TSC, reason="TypeScript is not installed: npm install typescript, and name its tsc in TSC")
def test_typescript_finds_nothing():
    scripts = sorted((ROOT / "web").glob("*.js"))
    command = [TSC, *FLAGS, "--lib", "es2023,dom,dom.iterable", ROOT / "tests" / "house" / "page_types.d.ts", *scripts]
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
