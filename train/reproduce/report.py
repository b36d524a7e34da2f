"""The results as JSON and as Markdown. The Markdown begins with what was registered and whether the gates passed."""

from __future__ import annotations

import json
from pathlib import Path

from realrag.files import write_atomic, write_json
from realrag.interval_text import span, with_interval

from ..stats import RESAMPLES
from .config import deviations
from .endpoints import PRIMARY, SECOND, SPLIT
from .paper import NOTE, table

RESULTS = "results.json"
ARMS = ("none", "random", "shuffled", "zero", "normal", "hard", "reflective", "reflective-ten", "utility", "oracle")
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
        f"- World: {world_of(results)}.",
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
            *_further(judge),
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


def _further(judge: dict) -> list[str]:
    """What was registered on 2026-11-30, of the judge that decides: Holm's endpoints, the mechanism, and the rankings."""
    lines: list[str] = []
    if rows := judge.get("further"):
        lines += [
            "| further endpoint, U1 | mean | 95 % interval | p | p after Holm | seeds above 0 | |",
            "|---" * 7 + "|",
        ]
        for row in rows:
            mean, bounds = row["difference"][0], span(row["difference"], "+.4f")
            lines.append(f"| {row['endpoint']} | {mean:+.4f} | {bounds} | {_p(row['p'])} | {_p(row['corrected'])} | "
                         f"{row['seeds_above']} of {row['seeds']} | **{row['conclusion']}** |")  # fmt: skip
        lines.append("")
    if rows := judge.get("mechanism"):
        lines += [
            f"| slope of the gain ({' - '.join(PRIMARY)}) of a class on | over | classes | slope |",
            "|---" * 4 + "|",
        ]
        for row in rows:
            value = "-" if row["slope"][0] is None else with_interval(row["slope"], "+.4f")
            lines.append(f"| {row['x']} | {row['over']} | {row['classes']} | {value} |")
        lines += ["", "Above 0: it gains where the generator alone is wrong. Described; decides nothing.", ""]
    if rows := judge.get("rankings"):
        lines += [f"| {' - '.join(PRIMARY)}, library ranked | held out from | mean | 95 % interval | seeds above 0 | "
                  "classes above, equal, below | right references |", "|---" * 7 + "|"]  # fmt: skip
        for row in rows:
            mean, bounds = row["difference"][0], span(row["difference"], "+.4f")
            right = ", ".join(f"{arm} {value:.3f}" for arm, value in row["right"].items())
            lines.append(f"| by {row['by']} | {row['split']} | {mean:+.4f} | {bounds} | {row['seeds_above']} of {row['seeds']} | "
                         f"{', '.join(map(str, row['classes']))} | {right} |")  # fmt: skip
        lines.append("")
    return lines


def _p(value: float) -> str:
    return f"{value:.4f}" if value else f"below {2 / RESAMPLES:.4f}"


def world_of(results: dict) -> str:
    """Which classes a run is about: two runs of one world share them, and are not independent."""
    plan = results["plan"]
    if plan["experiment"]["photos"]:
        return f"photos, library {results['retrieval']['facts']['library'][:12]}"
    return f"procedural, seed {plan['world']['seed']}"


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
    arms = {
        "accuracy": {arm: row["accuracy"][0] for arm, row in judge["accuracy"]["all"].items()},
        **{
            m: {arm: row[m][0] for arm, row in judge["pictures"]["arms"].items() if m in row} for m in ("FID", "CLIP-I")
        },
    }
    return ["## Beside the paper's Flux", "", *table({"here": (judge["relative"], arms)}), "", NOTE, ""]


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
