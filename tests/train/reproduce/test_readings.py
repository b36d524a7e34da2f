"""What finished results say: the published file of the first world as read by hand, pooling, power, and the paper's table.
And the registered endpoints of 2026-11-30 on verdicts made by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from realrag.errors import RealRAGError
from realrag_train.__main__ import main
from realrag_train.reproduce.endpoints import Verdicts, by_class_and_seed
from realrag_train.reproduce.further_endpoints import further_conclusion, further_endpoints, mechanism
from realrag_train.reproduce.paper import from_points, relative_gains
from realrag_train.reproduce.pool import pool_report, pool_worlds, taken_together
from realrag_train.reproduce.power import classes_needed, pictures_a_class, power_report, smallest_effect, spread_of
from realrag_train.reproduce.published import read_published
from realrag_train.significance import holm, p_value

RESULTS = Path(__file__).parents[3] / "experiments" / "results"
HOLDS = "the claim holds here: the interval lies above 0, and the seeds agree"


@pytest.fixture(scope="module")
def flux():
    return read_published(RESULTS / "flux.md")


def test_the_first_worlds_file_is_read_as_it_is_printed(flux):
    assert (flux.name, flux.world, flux.painter) == ("flux", "procedural, seed 0", "the miniature Flux")
    assert flux.primary == [0.0241, 0.0075, 0.0435] and flux.classes == 60 and flux.conclusion == HOLDS
    assert flux.arms["accuracy"]["reflective"] == [0.489, 0.443, 0.534] and flux.arms["FID"]["normal"] == [8.2438]
    assert flux.arms["CLIP-I"]["none"] == [0.7351] and "real photos" not in flux.arms["FID"]
    assert (flux.sets["normal"], flux.sets["reflective"], flux.noises, flux.painted) == (1.4, 1.5, 40, 43670)
    assert flux.error == pytest.approx(0.036 / 3.92, rel=1e-4) and flux.by_class_and_seed is None
    # Values as printed; the interval over Normal is that of the difference, -0.0013 (-0.0154 to +0.0128), over 0.490.
    assert flux.relative["accuracy"]["normal"] == pytest.approx([-0.003, -0.0154 / 0.49, 0.0128 / 0.49])
    assert flux.relative["accuracy"]["none"][0] == 0.223 and flux.relative["FID"]["normal"][1:] == [None, None]
    assert flux.relative["CLIP-I"]["none"][0] == pytest.approx(0.7981 / 0.7351 - 1)
    assert read_published(RESULTS / "sd3.md").world == flux.world


@pytest.mark.parametrize(
    "text",
    ["", "{}", "[]", '{"judges": {}}', "## Judge `cnn`\n**said**\n", "\0", '{"judges": {"cnn": {"differences": 3}}}'],
)
@pytest.mark.parametrize("name", ["results.json", "results.md"])
def test_what_is_no_result_is_refused_in_a_sentence(text, name, tmp_path):
    (tmp_path / name).write_text(text)
    with pytest.raises(RealRAGError, match=r"is no result of `reproduce run` \("):
        read_published(tmp_path / name)
    with pytest.raises(RealRAGError, match="cannot be read"):
        read_published(tmp_path / "missing.md")
    with pytest.raises(RealRAGError, match="does not count classes"):
        read_published(RESULTS / "first-run.md")  # an older table


# Pooled


def test_two_worlds_are_pooled_by_inverse_variance_and_get_no_prediction_interval(flux):
    other = replace(flux, name="again", world="procedural, seed 1", primary=[0.010, -0.004, 0.024])
    errors = 0.036 / (2 * 1.959964), 0.028 / (2 * 1.959964)
    weights = [1 / each**2 for each in errors]
    mean = (0.0241 * weights[0] + 0.010 * weights[1]) / sum(weights)
    q = (0.0241 - 0.010) ** 2 / (errors[0] ** 2 + errors[1] ** 2)
    _, found = pool_worlds([flux, other])
    assert found.fixed[0] == pytest.approx(mean) and found.q == pytest.approx(q)
    text = "\n".join(pool_report([flux, other]))
    assert "no honest prediction interval" in text and "Random-effects" not in text
    assert (
        f"**{mean:+.4f} (" in text
        and f"Q {q:.3f} with 1 degrees of freedom, p {math.erfc(math.sqrt(q / 2)):.3f}" in text
    )
    assert "By the registered rule: the claim holds in every world" in text
    doubtful = replace(
        other, conclusion="not shown: 0 lies in the interval, or the seeds disagree", painter="the miniature SD3"
    )
    text = "\n".join(pool_report([flux, doubtful]))
    assert (
        "not shown: the worlds do not agree" in text
        and "The painters differ (the miniature Flux, the miniature SD3)" in text
    )


def test_three_worlds_have_a_random_effects_mean(flux):
    worlds = [replace(flux, name=str(seed), world=f"procedural, seed {seed}") for seed in range(3)]
    worlds[1] = replace(worlds[1], primary=[-0.02, -0.04, 0.0])
    text = "\n".join(pool_report(worlds))
    assert "Random-effects mean (Paule-Mandel, Hartung-Knapp)" in text and "honest" not in text


def test_what_shares_a_world_or_has_no_verdict_is_not_pooled(flux, capsys):
    failed = replace(
        flux, world="procedural, seed 1", name="failed", conclusion="no verdict: the gates failed: ceiling"
    )
    other = replace(flux, world="procedural, seed 2", name="other")
    with pytest.raises(RealRAGError, match="1 of 2 experiments has a verdict"):
        pool_worlds([flux, failed])
    assert pool_worlds([flux, failed, other])[0] == [flux, other]
    assert "| failed (left out) |" in "\n".join(pool_report([flux, failed, other]))
    assert main(["reproduce", "pool", str(RESULTS / "flux.md"), str(RESULTS / "sd3.md")]) == 1
    assert "flux, sd3 are of one world (procedural, seed 0)" in capsys.readouterr().err
    assert main(["reproduce", "pool", str(RESULTS / "flux.md"), str(RESULTS / "flux.md")]) == 1
    assert "Two results are named flux" in capsys.readouterr().err
    assert taken_together(["reversed: x", "reversed: x"]) == "reversed in every world"
    assert taken_together([HOLDS, "reversed: x"]).startswith("not shown")


# Power


def test_the_classes_needed_show_the_effect_in_four_of_five_simulated_experiments():
    rng, spread, effect = np.random.default_rng(0), 0.07, 0.02
    count = classes_needed(spread, effect)
    means = rng.normal(effect, spread, (4000, count)).mean(1)
    assert np.mean(means > 1.96 * spread / math.sqrt(count)) == pytest.approx(0.8, abs=0.02)
    assert smallest_effect(spread, count) == pytest.approx(effect, rel=0.01)


def test_the_first_world_tells_what_sixty_classes_can_show(flux):
    """By hand: 0.0711 = 0.036 / 3.92 x sqrt(60); 2.8016 standard errors of it are 2.6 points."""
    text = "\n".join(power_report(flux, minutes=43))
    assert "standard deviation of 0.0711" in text and "60 classes show an effect of 2.6 points" in text
    assert pictures_a_class(flux) == pytest.approx(40 * (1.4 + 1.5 + 3))
    needed = math.ceil((2.8016 * 0.0711304 / 0.011) ** 2)
    assert f"| 1.1 | {needed:,} | {needed * 236:,.0f} | {needed * 236 * 43 / 60 / 43670:.1f} |" in text
    assert "| 60 | 2.6 | 14,160 | 0.2 |" in text and "| 620 | 0.8 | 146,320 | 2.4 |" in text
    assert "what more seeds would give is not known" in text and "hours" not in "\n".join(power_report(flux))
    for bad, error in (
        (replace(flux, primary=[0.0, 0.0, 0.0]), "no class differs"),
        (replace(flux, sets={}), "does not state"),
    ):
        with pytest.raises(RealRAGError, match=error):
            power_report(bad)
    with pytest.raises(RealRAGError, match="give differences above 0"):
        power_report(flux, effects=[0.01, 0.0])


def test_rows_by_class_and_seed_part_what_more_seeds_give_from_what_they_do_not(flux):
    rng = np.random.default_rng(1)
    rows = rng.normal(0.02, 0.06, (4000, 1)) + rng.normal(0, 0.03, (4000, 5))
    found = replace(flux, by_class_and_seed=rows, classes=4000)
    spread = spread_of(found)
    assert spread.between**0.5 == pytest.approx(0.06, rel=0.05) and spread.within**0.5 == pytest.approx(0.03, rel=0.05)
    assert spread.of(5) == pytest.approx(rows.mean(1).std(ddof=1))
    text = "\n".join(power_report(found))
    assert "Of one seed's variance 20% lies between seeds" in text
    cells = next(line for line in text.splitlines() if line.startswith("| 1.1 |")).split("|")[2:6]
    counts = [int(cell.replace(",", "")) for cell in cells]
    assert counts == sorted(counts, reverse=True) and counts[-1] == classes_needed(spread.between**0.5, 0.011)


# Beside the paper


def test_relative_gains_without_better_figures_are_taken_from_those_of_each_arm():
    arms = {"reflective": [0.5, 0.45, 0.55], "normal": [0.4, 0.35, 0.45], "none": [0.25, 0.2, 0.3]}
    found = from_points("accuracy", arms, [0.1, 0.02, 0.18])
    assert found["normal"] == pytest.approx([0.25, 0.05, 0.45])
    error = math.hypot(0.1 / 3.92 / 0.5, 0.1 / 3.92 / 0.25)
    assert found["none"] == pytest.approx(
        [1, 2 * math.exp(-1.96 * error) - 1, 2 * math.exp(1.96 * error) - 1], rel=1e-3
    )
    assert from_points("FID", {arm: row[:1] for arm, row in arms.items()})["none"] == [1, None, None]
    assert from_points("FID", {}) == {} == from_points("FID", {"reflective": [1.0], "none": [0.0]})


def test_the_papers_table_is_printed_of_several_files_and_is_called_no_measure_in_common(tmp_path, capsys):
    assert (
        main(["reproduce", "paper", str(RESULTS / "flux.md"), str(RESULTS / "sd3.md"), "--out", str(tmp_path / "t.md")])
        == 0
    )
    text = (tmp_path / "t.md").read_text()
    assert capsys.readouterr().out.strip() == text.strip() and "**Never the same measure**" in text
    assert "| accuracy, over normal | +2.8% | -0.3% (-3.1% to +2.6%) | -0.4% (" in text
    assert "| FID, over normal | -3.3% | -3.7% | -2.1% |" in text and "no intervals of relative gains" in text
    assert "| CLIP-I, over normal | +1.8% | +0.3% | -0.1% |" in text


# Registered on 2026-11-30


def made(rng, seeds=5, classes=60, pictures=20, gain=0.0, ten=0.0):
    """Verdicts of arms whose chance of being right differs by what is given; `none` is wrong in half of the classes."""
    codes = np.repeat(np.arange(classes), pictures)
    base, noise = np.clip(rng.normal(0.4, 0.1, classes), 0.1, 0.7)[codes], rng.random(len(codes))
    wrong = (np.arange(classes) % 2)[codes]

    def arm(more, count=seeds):
        return (noise < base + more)[None].repeat(count, 0).astype(float)

    right = {"normal": arm(0), "reflective": arm(gain * wrong), "utility": arm(0), "reflective-ten": arm(gain * wrong + ten),
             "none": (1 - wrong)[None].astype(float)}  # fmt: skip
    far = {code: float(code % 2) for code in range(classes)}
    return Verdicts(right, codes, np.full(len(codes), "U1"), np.ones(len(codes), bool), {"all": [1, 1, 1]}, {}, far)


def test_a_further_endpoint_holds_after_holm_and_one_without_a_difference_is_not_shown():
    found = made(np.random.default_rng(0), ten=0.1)
    ten, utility = further_endpoints(found, 0.8, True)
    gain = (found.right["reflective-ten"] - found.right["reflective"]).mean(0)
    assert ten["p"] == p_value(gain, found.classes) and utility["p"] == 1
    assert [ten["corrected"], utility["corrected"]] == holm([ten["p"], 1])
    assert ten["conclusion"] == "holds" and utility["conclusion"] == "not shown"
    assert {row["conclusion"] for row in further_endpoints(found, 0.8, False)} == {"no verdict: a gate failed"}
    assert further_endpoints(replace(found, right={"reflective": found.right["reflective"]}), 0.8, True) == []


@pytest.mark.parametrize(
    ("mean", "by_seed", "corrected", "said"),
    [
        (0.02, [0.1, 0.1, 0.1, 0.1, -0.1], 0.049, "holds"), (0.02, [0.1, 0.1, 0.1, -0.1, -0.1], 0.01, "not shown"),
        (0.02, [0.1] * 5, 0.05, "not shown"), (-0.02, [-0.1] * 5, 0.01, "reversed"), (0.0, [0.0] * 5, 0.01, "not shown"),
    ],
)  # fmt: skip
def test_the_words_of_a_further_endpoint(mean, by_seed, corrected, said):
    assert further_conclusion({"difference": [mean, 0, 0], "by_seed": by_seed, "seeds": 5}, corrected, 0.8) == said


def test_the_slope_finds_gains_where_the_generator_is_wrong_and_none_where_they_are_everywhere():
    """By construction the gain is 0.2 in classes that `none` has wrong, of 0; `none` enters the gain nowhere."""
    over_all, unseen = mechanism(made(np.random.default_rng(1), gain=0.2))
    assert over_all["slope"][0] == pytest.approx(0.2, abs=0.05) and over_all["slope"][1] > 0.1
    assert unseen["slope"] == over_all["slope"] and (unseen["over"], unseen["classes"]) == ("U1", 60)
    same = made(np.random.default_rng(1))
    everywhere = replace(same, right={**same.right, "reflective": same.right["reflective-ten"]})
    assert mechanism(everywhere)[0]["slope"] == [0, 0, 0]
    assert mechanism(replace(same, right={"normal": same.right["normal"], "reflective": same.right["normal"]})) == []


@pytest.mark.slow
def test_chance_alone_gives_the_slope_no_sign():
    rng, hits = np.random.default_rng(2), []
    for _ in range(40):
        found = made(rng, pictures=10)
        one = (rng.random(found.right["normal"].shape) < 0.4).astype(float)
        _, low, high = mechanism(replace(found, right={**found.right, "reflective": one}))[0]["slope"]
        hits.append(low <= 0 <= high)
    assert np.mean(hits) >= 0.85


def test_rows_by_class_and_seed_average_to_the_endpoint():
    found = made(np.random.default_rng(3), gain=0.2)
    rows = np.array(by_class_and_seed(found))
    assert rows.shape == (60, 5)
    difference = (found.right["reflective"] - found.right["normal"]).mean(0)
    assert rows.mean() == pytest.approx(difference.mean())
    uneven = replace(found, right={**found.right, "normal": found.right["normal"][:2]})
    assert np.array(by_class_and_seed(uneven)).shape == (60, 1)


def test_relative_gains_are_of_pictures_that_every_class_has_alike():
    found = made(np.random.default_rng(4), gain=0.2)
    uneven = found.classes < 30
    found = replace(found, even=uneven)
    one, two = (found.right[arm].mean(0)[uneven] for arm in ("reflective", "normal"))
    gains = relative_gains(found, {"relative": {"reflective / normal": {"FID": [-0.1, -0.2, 0.0]}}})
    assert gains["accuracy"]["normal"][0] == pytest.approx(one.mean() / two.mean() - 1, abs=1e-6)
    assert gains["FID"] == {"normal": [-0.1, -0.2, 0.0]} and json.dumps(gains)
