"""What `from realrag import ...` promises."""

import subprocess
import sys

import pytest

import realrag


def test_every_public_name_can_be_imported_and_is_the_one_of_its_module():
    assert set(realrag.__all__) == {"Bundle", "Retriever", "__version__", "load_encoder"}
    from realrag import Bundle, Retriever, load_encoder
    from realrag.bundle.bundle import Bundle as bundle
    from realrag.encoders.load import load_encoder as load
    from realrag.retriever import Retriever as retriever

    assert (Bundle, Retriever, load_encoder) == (bundle, retriever, load)


def test_importing_the_package_loads_no_torch():
    code = "import sys, realrag\nprint(realrag.__version__, 'torch' in sys.modules)"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.split() == [realrag.__version__, "False"]


def test_an_unknown_name_is_refused_with_the_public_ones():
    with pytest.raises(AttributeError, match="public are Bundle, Retriever"):
        _ = realrag.Retreiver
