"""The results as JSON and as Markdown. The Markdown begins with what was registered and whether the gates passed."""

from __future__ import annotations

import json
from pathlib import Path

from realrag.files import write_atomic, write_json
from realrag.interval_text import span, with_interval

from .config import deviations
from .endpoints import PRIMARY, SECOND, SPLIT

RESULTS = "results.json"
ARMS = ("none", "random", "shuffled", "zero", "normal", "hard", "reflective", "utility", "oracle")
# What the paper prints for Flux: accuracy, the mean of Cars, Dogs and Flowers (tables 2, 4, 5), and FID on Cars (1, 3).
PAPER = {
    "accuracy": {"none": 37.29, "normal": 39.27, "reflective": 40.37},
    "FID": {"none": 58.47, "normal": 54.04, "reflective": 52.28},
}
PICTURES = ("CLIP-I", "FID", "KID", "copied", "references copied", "diversity")


def write_results(folder: Path, results: dict) -> str:
    """Writes results.json and results.md and returns the text of the latter."""
    write_json(folder / RESULTS, results)
    text = "\n".join(markdown(results)) + "\n"
    write_atomic(folder / "results.md", text.encode())
    return text


def markdown(results: dict) -> list[str]:
    """The lines of results.md."""
    plan = results["plan"]["experiment"]
    lines = ["# Reproduction: results", ""]
    if not plan["photos"]:
        lines += ["The world is procedural: its pictures are drawn by a program, and no photograph is among them.", ""]
    painted = results["painted"]
    lines += [
        "## Registered", "", f"- Primary endpoint: accuracy on {SPLIT} (unseen by the generator, among the retriever's training "
        f"photos), {' - '.join(PRIMARY)}, paired by prompt and noise, seeds averaged, classes resampled.",
        f"- Second endpoint: the same, {' - '.join(SECOND)}.",
        f"- Judges: {', '.join(plan['judges'])}; the first decides.",
        f"- References a prompt: {plan['k']}; pictures a prompt and arm: {plan['noises']}, on {SPLIT} {plan['unseen_noises']}.",
        f"- Painter: {painted['painter']['name']}; {painted['asked']} pictures of all arms, {painted['painted']} of them distinct.",
        *(f"- **Differs from what was registered**: {each}." for each in deviations(results["plan"])), "",
    ]  # fmt: skip
    for name, judge in results["judges"].items():
        lines += [
            f"## Judge `{name}`",
            "",
            f"**{judge['conclusion']}**",
            "",
            *gate_rows(judge["gates"]),
            *_endpoints(judge),
            *_accuracy(judge),
        ]
        lines += _pictures(judge["pictures"])
    return [*lines, *_beside_the_paper(next(iter(results["judges"].values()))), *_retrieval(results)]


def gate_rows(gates: list[dict]) -> list[str]:
    rows = ["| gate | rule | measured | |", "|---|---|---|---|"]
    return [
        *rows,
        *(
            f"| {g['gate']} | {g['rule']} | {g['measured']:.4g} | {'passed' if g['passed'] else 'FAILED'} |"
            for g in gates
        ),
        "",
    ]


def _endpoints(judge: dict) -> list[str]:
    rows = [
        "| difference in accuracy | held out from | mean | 95 % interval | seeds above 0 | classes above, equal, below |",
        "|---|---|---|---|---|---|",
    ]
    for pair, splits in judge["differences"].items():
        mark = {" - ".join(PRIMARY): " (primary)", " - ".join(SECOND): " (second)"}.get(pair, "")
        for split, row in splits.items():
            mean, bounds = row["difference"][0], span(row["difference"], "+.4f")
            rows.append(f"| {pair}{mark if split == SPLIT else ''} | {split} | {mean:+.4f} | {bounds} | "
                        f"{row['seeds_above']} of {row['seeds']} | {', '.join(map(str, row['classes']))} |")  # fmt: skip
    return [*rows, ""]


def _accuracy(judge: dict) -> list[str]:
    splits = list(judge["accuracy"])
    rows = ["| accuracy | " + " | ".join(splits) + " |", "|---" * (len(splits) + 1) + "|"]
    real = (f"{judge['ceiling'][s][0]:.3f}" if s in judge["ceiling"] else "-" for s in splits)
    rows.append("| real photos (ceiling) | " + " | ".join(real) + " |")
    for arm in ordered(judge["accuracy"]["all"]):
        cells = (judge["accuracy"][split][arm]["accuracy"] for split in splits)
        rows.append(f"| {arm} | " + " | ".join(map(with_interval, cells)) + " |")
    confused = "Of real photos, {accuracy:.1%} are named rightly; {mistakes on siblings:.1%} of the mistakes fall on a sibling ({by chance:.1%} by chance)."
    return [*rows, "", confused.format(**judge["confusions"]), ""]


def ordered(names) -> list[str]:
    return sorted(names, key=lambda name: (ARMS.index(name) if name in ARMS else len(ARMS), name))


def _pictures(report: dict) -> list[str]:
    """The measures of `judge`, for one seed of each arm with equally many pictures of each class."""
    measures = [m for m in PICTURES if any(m in row for row in report["arms"].values())]
    rows = ["| first seed | " + " | ".join(measures) + " |", "|---" * (len(measures) + 1) + "|"]
    for name, row in {
        "real photos": report["real"],
        **{arm: report["arms"][arm] for arm in ordered(report["arms"])},
    }.items():
        rows.append(f"| {name} | " + " | ".join(f"{row[m][0]:.4f}" if m in row else "-" for m in measures) + " |")
    apart = report["distances"]
    if apart:
        rows += ["", f"FID and KID of {apart['pictures']} pictures against {apart['photos']} real photos in {apart['dim']} dimensions; "
                 f"real against real: FID {apart['floor']['FID'][0]:.4f}. CLIP-I is the cosine to the class's real photos."]  # fmt: skip
    return [*rows, ""]


def _beside_the_paper(judge: dict) -> list[str]:
    """Relative gains beside the paper's, as absolute values of different worlds cannot be compared."""
    here = {"accuracy": {arm: row["accuracy"][0] for arm, row in judge["accuracy"]["all"].items()},
            "FID": {arm: row["FID"][0] for arm, row in judge["pictures"]["arms"].items() if "FID" in row}}  # fmt: skip
    rows = ["## Beside the paper's Flux", "", "| relative gain of reflective | the paper | here |", "|---|---|---|"]
    for measure, paper in PAPER.items():
        gains = zip(_gains(paper), _gains(here[measure]), strict=True)
        names = (
            f"{measure}, over normal",
            f"{measure}, over none",
            f"{measure}, share of the gain over none that normal lacks",
        )
        rows += [f"| {name} | {there} | {own} |" for name, (there, own) in zip(names, gains, strict=True)]
    return [
        *rows,
        "",
        "The first judge's figures, over all classes, which weigh alike. FID falls where pictures get better.",
        "",
    ]


def _gains(arms: dict[str, float]) -> list[str]:
    if {"none", "normal", "reflective"} - arms.keys():
        return ["-"] * 3
    none, normal, reflective = (arms[name] for name in ("none", "normal", "reflective"))

    def over(other):
        return f"{reflective / other - 1:+.1%}" if other else "-"

    fraction = f"{(reflective - normal) / (reflective - none):.0%}" if reflective != none else "-"
    return [over(normal), over(none), fraction]


def _retrieval(results: dict) -> list[str]:
    rows = [
        "## Retrieval",
        "",
        "| arm | R@1 of known classes | right references G-seen | U1 | U2 | different sets a U1 prompt |",
        "|---|---|---|---|---|---|",
    ]
    for arm in ordered(results["references"]):
        r1 = results["retrieval"]["arms"].get(arm, {}).get("all", {}).get("R@1")
        chosen = results["references"][arm]
        cells = [chosen[split]["right"] if split in chosen else None for split in ("G-seen", "U1", "U2")]
        sets = f"{chosen[SPLIT]['sets']:.1f}" if SPLIT in chosen else "-"
        rows.append(
            f"| {arm} | {f'{r1[0]:.3f}' if r1 else '-'} | "
            + " | ".join("-" if c is None else f"{c:.3f}" for c in cells)
            + f" | {sets} |"
        )
    return [*rows, "", f"Configuration: `{json.dumps(results['plan']['experiment'], sort_keys=True)}`"]
