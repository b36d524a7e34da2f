"""What of a text an encoder takes in: how many words fit, and which it never learned."""

from realrag.encoders import load_encoder


def test_the_shipped_encoder_names_the_words_it_never_learned():
    found = load_encoder().coverage("a puffin beside a garlic bulb")
    assert found.words == found.read == 6
    assert "puffin" in found.unknown and "garlic" not in found.unknown


def test_the_shipped_encoder_says_where_it_stops_reading():
    found = load_encoder().coverage("garlic " * 300)
    assert found.words == 300 and 60 < found.read < 120


def test_open_clip_says_how_many_words_fit_into_its_context(tiny_clip):
    encoder = load_encoder(str(tiny_clip))
    assert encoder.coverage("a red car") == (3, 3, ())
    found = encoder.coverage("car " * 100)
    assert found.words == 100 and found.read == 75  # 77 tokens less start and end; one a word
