"""Votes: the blinded page, the key, and Bradley-Terry against its likelihood, known cases and simulated voters."""

import base64
import json
import re
from pathlib import Path

import numpy as np
import pytest
from made_photos import COLORS, photo_bytes

from realrag.errors import RealRAGError
from realrag.indexing.build import build
from realrag_train.__main__ import main
from realrag_train.pictures.arms import Picture
from realrag_train.votes.bradley_terry import PRIOR, Votes, read_votes_as_strengths, strengths, win_table
from realrag_train.votes.make import make_pairs
from realrag_train.votes.read import read_key, read_page


def slow_strengths(wins, steps=20_000, rate=0.05):
    """Gradient ascent on sum_ij wins_ij log P(i beats j)."""
    s = np.zeros(len(wins))
    for _ in range(steps):
        gradient = np.zeros(len(wins))
        for i in range(len(wins)):
            for j in range(len(wins)):
                if i != j:
                    gradient[i] += wins[i, j] - (wins[i, j] + wins[j, i]) / (1 + np.exp(s[j] - s[i]))
        s += rate * gradient
        if abs(gradient).max() < 1e-9:
            break
    return s - s.mean()


def simulated(true, pairs=400, voters=5, seed=0):
    """Everybody votes on every pair; ties come in one of ten."""
    rng = np.random.default_rng(seed)
    first, second = (
        np.array(each) for each in zip(*[rng.permutation(len(true))[:2] for _ in range(pairs)], strict=True)
    )
    first, second, prompts = (each.repeat(voters) for each in (first, second, np.arange(pairs)))
    won = rng.random(len(first)) < 1 / (1 + np.exp(true[second] - true[first]))
    score = np.where(rng.random(len(first)) < 0.1, 0.5, won.astype(float))
    return Votes(tuple("abcd"[: len(true)]), first, second, score, prompts, np.tile(np.arange(voters), pairs))


def test_strengths_maximise_the_likelihood():
    wins = np.random.default_rng(0).integers(1, 9, (4, 4)).astype(float) * (1 - np.eye(4))
    np.testing.assert_allclose(strengths(wins), slow_strengths(wins), atol=1e-7)
    both = strengths(np.stack([wins, wins.T]))
    np.testing.assert_allclose(both[0], -both[1], atol=1e-7)  # to lose where one won turns the strengths about


def test_two_arms_differ_by_the_logarithm_of_their_odds():
    s = strengths(np.array([[0, 30.0], [12, 0]]))
    assert s[0] - s[1] == pytest.approx(np.log(30 / 12))
    votes = Votes(
        ("a", "b"), np.zeros(42, int), np.ones(42, int), (np.arange(42) < 30).astype(float), np.arange(42), np.zeros(42)
    )
    row = read_votes_as_strengths(votes, resamples=500)["pairs"]["a - b"]
    assert row["apart"][0] == pytest.approx(np.log((30 + PRIOR) / (12 + PRIOR)), abs=1e-4)
    assert (row["wins"], row["ties"], row["losses"], row["share"][0]) == (30, 0, 12, pytest.approx(30 / 42, abs=1e-4))
    spread = 1.96 * np.sqrt(30 * 12 / 42) / 42  # of a binomial share
    assert row["share"][1] == pytest.approx(30 / 42 - spread, abs=0.03)
    assert row["share"][2] == pytest.approx(30 / 42 + spread, abs=0.03)


def test_a_tie_is_half_a_win_for_either_and_the_side_does_not_matter():
    votes = Votes(
        ("a", "b"), np.array([0, 1, 0]), np.array([1, 0, 1]), np.array([1.0, 0.0, 0.5]), np.arange(3), np.zeros(3)
    )
    np.testing.assert_allclose(win_table(votes, np.ones((1, 3)))[0], [[0, 2.5], [0.5, 0]])


def test_known_strengths_are_found_from_simulated_votes():
    true = np.array([1.2, 0.4, -0.3, -1.3])
    report = read_votes_as_strengths(simulated(true, 600), resamples=500)
    assert list(report["strengths"]) == ["a", "b", "c", "d"]
    # one vote in ten is a tie, which draws all strengths together a little
    for arm, s in zip("abcd", true, strict=True):
        assert report["strengths"][arm][0] == pytest.approx(0.88 * s, abs=0.12)
    assert all(row["apart"][1] > 0 for row in report["pairs"].values())


def test_equal_arms_are_not_told_apart_more_often_than_the_interval_says():
    apart = 0
    for seed in range(40):
        row = read_votes_as_strengths(simulated(np.zeros(2), 60, 3, seed), resamples=250)["pairs"]
        low, high = next(iter(row.values()))["apart"][1:]
        apart += not low <= 0 <= high
    assert apart <= 6


def test_one_hard_prompt_widens_the_interval_more_than_as_many_prompts():
    same = Votes(
        ("a", "b"),
        np.zeros(60, int),
        np.ones(60, int),
        (np.arange(60) % 3 > 0).astype(float),
        np.arange(60),
        np.zeros(60),
    )
    clustered = Votes(("a", "b"), same.first, same.second, np.sort(same.score), np.arange(60) // 10, same.voters)
    wide = [
        np.diff(read_votes_as_strengths(v, resamples=500)["pairs"]["a - b"]["share"][1:])[0] for v in (same, clustered)
    ]
    assert wide[1] > 2 * wide[0]


def test_an_arm_that_never_lost_has_a_finite_strength_and_islands_are_refused():
    won = Votes(("a", "b"), np.zeros(9, int), np.ones(9, int), np.ones(9), np.arange(9), np.zeros(9))
    assert np.isfinite(read_votes_as_strengths(won, resamples=50)["strengths"]["a"]).all()
    islands = Votes(tuple("abcd"), np.array([0, 2]), np.array([1, 3]), np.ones(2), np.arange(2), np.zeros(2))
    with pytest.raises(RealRAGError, match="compares a with c"):
        read_votes_as_strengths(islands)


# The page


def pictures(arm, prompts=10, seeds=2):
    return [
        Picture(Path(f"{arm}/{p}/{s}.jpg"), f"prompt {p}", f"class {p}", s)
        for p in range(prompts)
        for s in range(seeds)
    ]


def test_pairs_are_balanced_in_arms_sides_and_prompts():
    arms = {arm: pictures(arm) for arm in ("none", "zero", "reflective")}
    pairs = make_pairs(arms, 30, seed=3)
    assert len(pairs) == 30 and len({p.id for p in pairs}) == 30
    for couple in (("none", "zero"), ("none", "reflective"), ("reflective", "zero")):
        these = [p for p in pairs if {p.left, p.right} == set(couple)]
        assert len(these) == 10 and sum(p.left == couple[0] for p in these) == 5
        assert len({p.prompt for p in these}) == 10  # each prompt once before any comes again
    for p in pairs:
        number = p.prompt.split()[1]
        assert p.files == tuple(Path(f"{arm}/{number}/{p.seed}.jpg") for arm in (p.left, p.right))
    assert pairs == make_pairs(arms, 30, seed=3) != make_pairs(arms, 30, seed=4)
    assert len(make_pairs(arms, 1000)) == 60
    with pytest.raises(RealRAGError, match="two arms"):
        make_pairs({"none": pictures("none")}, 30)


@pytest.fixture
def voted(tmp_path, encoder):
    """The page's folder, and a function that votes for one arm, or by a rule of its own, as the page writes it down."""
    for part, first in (("gallery", 0), ("none", 50), ("reflective", 90)):
        for name, color in COLORS.items():
            (tmp_path / part / name).mkdir(parents=True)
            for seed in range(2):
                (tmp_path / part / name / f"{seed}.jpg").write_bytes(photo_bytes(color, first + seed))
    build(tmp_path / "gallery", tmp_path / "real", encoder)
    arms = [word for arm in ("none", "reflective") for word in ("--arm", f"{arm}={tmp_path / arm}")]
    assert main(["votes", "make", *arms, "--real", str(tmp_path / "real"), "--out", str(tmp_path / "page")]) == 0

    def vote(voter, choose):
        key = read_key(tmp_path / "page" / "key.json")
        votes = [{"pair": id, "choice": choose(pair), "seconds": 1.5} for id, pair in key["pairs"].items()]
        content = {"format": "realrag-votes", "version": 1, "page": key["page"], "voter": voter, "votes": votes}
        (tmp_path / f"{voter}.json").write_text(json.dumps(content))
        return tmp_path / f"{voter}.json"

    return tmp_path / "page", vote


def test_the_page_tells_no_arm_loads_nothing_and_runs_only_its_own_script(voted):
    page, _ = voted
    text = (page / "vote.html").read_text()
    assert not re.search("none/|reflective|zero", re.sub("data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", text))
    assert not re.search(r"https?:|src=\"(?!data:)", text) and "default-src 'none'" in text
    script = re.findall("<script>(.*?)</script>", text, re.S)
    import hashlib

    assert len(script) == 1
    assert base64.b64encode(hashlib.sha256(script[0].encode()).digest()).decode() in text
    data = json.loads(re.search('<script type="application/json" id="data">(.*?)</script>', text, re.S)[1])
    key = read_key(page / "key.json")
    assert {pair["id"] for pair in data["pairs"]} == set(key["pairs"]) and all(pair["real"] for pair in data["pairs"])


def test_words_of_a_prompt_cannot_leave_the_page_s_data(tmp_path):
    from realrag_train.votes.page import html_page

    evil = "</script><script>alert(1)</script>"
    text = html_page("p", evil, [{"id": "a", "prompt": evil, "left": "", "right": ""}]).decode()
    assert text.count("<script") == 2 and "alert(1)</script>" not in text.replace("&lt;/script&gt;", "")


def test_votes_go_through_the_key_and_come_out_by_arm(voted, tmp_path, capsys):
    page, vote = voted
    fan = vote("fan", lambda pair: "left" if pair["left"] == "reflective" else "right")
    unsure = vote("unsure", lambda pair: "tie")
    assert (
        main(["votes", "read", str(page / "key.json"), str(fan), str(unsure), "--out", str(tmp_path / "read.json")])
        == 0
    )
    said = capsys.readouterr().out
    assert "12 votes by 2 voters on 3 prompts, 6 ties" in said and "reflective - none: 6, 6, 0; 75.0%" in said
    report = json.loads((tmp_path / "read.json").read_text())
    assert list(report["strengths"]) == ["reflective", "none"] and report["left_share"] == 0.5
    again = read_page(read_key(page / "key.json"), [fan, vote("fan", lambda pair: "tie")])
    assert (again["votes"], again["ties"], again["replaced"]) == (6, 6, 6)


@pytest.mark.parametrize(
    "change, told",
    [({"page": "0" * 16}, "is of the page"), ({"votes": [{"pair": "x", "choice": "left"}]}, "each names a pair"),
     ({"votes": [3]}, "each names a pair"), ({"version": 2}, "its format is not"), ({"voter": 3}, "'voter'"),
     ({"votes": []}, "no vote")],
)  # fmt: skip
def test_a_file_that_holds_no_votes_of_this_page_is_refused(voted, tmp_path, change, told):
    page, vote = voted
    file = vote("someone", lambda pair: "left")
    file.write_text(json.dumps({**json.loads(file.read_text()), **change}))
    with pytest.raises(RealRAGError, match=told):
        read_page(read_key(page / "key.json"), [file])
