"""American spelling, and one word an idea: words that the glossary of docs/architecture.md has replaced do not come back."""

import ast
import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BRITISH = """
    artefact behaviour cancelled catalogue centre centred colour colours coloured defence favour favourite fulfil grey
    greyscale honour initialise initialised judgement labelled labelling learnt modelled modelling neighbour neighbours
    neighbouring neighbourhood normalise normalised normalises normalising optimise optimised optimises optimisation organise
    organised practise programme recognise recognised recognises serialise serialised signalled spelt summarise towards
    travelled utilise visualise whilst afterwards
""".split()
# Names that files and recipes have used from the start keep their spelling: the tensor "centre", the encoder "colour" of
# bundles saved by 0.1.0, the fields `licence` and `optimiser` (which are not in the list).
KEPT = re.compile(r"""["']centre["']|["']colour["']|match="colour |Encoder colour: """)
WORD = re.compile(rf"\b({'|'.join(BRITISH)})\b", re.IGNORECASE)
# Identifiers of our own, private words once; the glossary has the field's word for each.
REPLACED = "at_once AtOnce Seen dice dials cousin Pace Held Memo worth newer home_of".split()
NOT_OURS = re.compile(
    r"tests/data/|realrag/assets/|realrag/prompts/data/|experiments/|workflows/|findings/|tests/house/test_words\.py"
    r"|docs/registration\.md"  # registered text is never changed
    r"|web/docs/\w+/|web/words/"  # other languages; tools/locales/en.json holds the English of the latter
    r"|.*\.(svg|json|png|jpg|webp|safetensors|toml)$"
)


def texts() -> list[str]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("this is no git checkout, so nothing says which files belong to it")
    return [name for name in listed.stdout.split("\0") if name and not NOT_OURS.match(name) and (ROOT / name).is_file()]


@pytest.mark.slow
def test_spelling_is_american():
    found = []
    for name in texts():
        for number, line in enumerate((ROOT / name).read_text(encoding="utf-8").splitlines(), 1):
            found += [f"{name}:{number}: {word}" for word in WORD.findall(KEPT.sub("", line))]
    assert not found


def identifiers(tree: ast.AST) -> set[str]:
    """The names that code gives: of functions, classes, parameters, variables and attributes."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            found.add(node.name)
        elif isinstance(node, ast.arg):
            found.add(node.arg)
        elif isinstance(node, (ast.Name, ast.Attribute)) and isinstance(node.ctx, ast.Store):
            found.add(node.id if isinstance(node, ast.Name) else node.attr)
    return found


@pytest.mark.slow
def test_no_name_is_a_word_that_the_glossary_has_replaced():
    found, word = [], re.compile(rf"\b(?:{'|'.join(REPLACED)})\b")
    for name in texts():
        text = (ROOT / name).read_text(encoding="utf-8") if name.endswith(".py") else ""
        if word.search(text):
            found += [f"{name}: {each}" for each in identifiers(ast.parse(text)) & set(REPLACED)]
    assert not found


@pytest.mark.slow
def test_the_trainer_logs():
    found = [name for name in texts() if name.startswith(("train/", "tools/")) and name.endswith(".py")
             and "say" in identifiers(ast.parse((ROOT / name).read_text(encoding="utf-8")))]  # fmt: skip
    assert not found, "a callback that takes lines for a person is called log"


@pytest.mark.parametrize("line, words", [("the Colour of a neighbour", 2), ('state["centre"]', 0), ("a color", 0)])
def test_the_check_finds_what_it_looks_for(line, words):
    assert len(WORD.findall(KEPT.sub("", line))) == words
