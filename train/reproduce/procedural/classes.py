"""The twenty families of the procedural world and their classes. A class is a combination of attributes, and its name
spells them out.

Siblings differ in one to five attributes, so a prompt for a held-out class uses only words known from other classes."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from realrag.errors import RealRAGError

from . import animals_and_plants, buildings_and_shoes, household, vehicles
from .pen import Color

ACCENTS: dict[str, Color] = {
    "red": (205, 40, 40), "yellow": (240, 200, 40), "blue": (40, 80, 190), "green": (40, 150, 70), "pink": (235, 120, 170),
}  # fmt: skip

CONSONANTS, VOWELS, SYLLABLES = "bdfgklmnprstvz", "aeiou", 3


@dataclass(frozen=True)
class Family:
    """A kind of object. `name` is one word, `says` a template of class names with attributes in braces, `axes` maps
    each attribute to its values, and `draw(pen, look, paint, accent)` draws it. The accent is one of ACCENTS."""

    name: str
    says: str
    axes: dict[str, tuple[str, ...]]
    draw: Callable


@dataclass(frozen=True)
class ClassOf:
    """One fine-grained class. `look` maps each attribute to its value, the accent included."""

    family: Family
    look: dict[str, str]

    @property
    def folder(self) -> str:
        """The name as a folder name, which the library reads as the class."""
        return self.name.replace(",", "").replace(" ", "-")

    @property
    def proper(self) -> str:
        """The name that a generator learns: a made-up word and the family. Like "Audi 100", it does not describe the
        appearance. A descriptive name would let the generator draw a never-seen class without a reference."""
        rng = random.Random(f"proper/{self.name}")
        return "".join(rng.choice(CONSONANTS) + rng.choice(VOWELS) for _ in range(SYLLABLES)) + f" {self.family.name}"

    @property
    def name(self) -> str:
        """The descriptive name, unique to the class."""
        return " ".join(
            self.family.says.format(**{key.replace(" ", "_"): value for key, value in self.look.items()}).split()
        )


PATTERN = ("plain", "striped", "dotted")
FAMILIES = (
    Family("car", "{body} car with {wheels} wheels and a {accent} stripe {roof}",
           {"body": ("hatchback", "saloon", "pickup"), "wheels": ("disc", "spoked"), "roof": ("", "with a roof rack")}, vehicles.car),
    Family("bus", "{decks} bus with {windows} windows and {stripes} in {accent}",
           {"decks": ("single-deck", "double-deck"), "windows": ("square", "round"), "stripes": ("one stripe", "two stripes")}, vehicles.bus),
    Family("boat", "{hull} boat with {sails} {cloth} sail and a {accent} flag",
           {"hull": ("round-hulled", "sharp-hulled"), "sails": ("one", "two", "square"), "cloth": ("plain", "striped")}, vehicles.boat),
    Family("aeroplane", "aeroplane with {wings} wings, {engines} engines and a {tail} tail in {accent}",
           {"wings": ("straight", "swept"), "engines": ("two", "four"), "tail": ("low", "high")}, vehicles.aeroplane),
    Family("train", "steam train with a {funnel} funnel, {dome}, {wheels} wheels and {accent} trim",
           {"funnel": ("straight", "flared"), "dome": ("a dome", "no dome"), "wheels": ("two", "three", "four")}, vehicles.train),
    Family("mug", "{pattern} mug with a {handle} handle and {accent} glaze",
           {"pattern": (*PATTERN, "banded"), "handle": ("round", "square", "double")}, household.mug),
    Family("teapot", "{body} {pattern} teapot with a {spout} spout and {accent} lid",
           {"body": ("round", "boxy"), "pattern": PATTERN, "spout": ("curved", "straight")}, household.teapot),
    Family("lamp", "lamp with a {pattern} {shade} shade on a {base} base in {accent}",
           {"pattern": ("plain", "striped"), "shade": ("cone", "drum", "dome"), "base": ("tripod", "ball", "plate")}, household.lamp),
    Family("chair", "chair with a {back} back and {legs} legs {arms} and a {accent} cushion",
           {"back": ("slatted", "solid", "oval"), "legs": ("upright", "splayed"), "arms": ("", "with arms")}, household.chair),
    Family("clock", "{case} clock with {top}, {marks} and {accent} hands",
           {"case": ("round", "square", "octagonal"), "top": ("two bells", "no bells"), "marks": ("four marks", "twelve marks")}, household.clock),
    Family("bottle", "{body} {top} bottle with a {label} {accent} label",
           {"body": ("slim", "broad", "pear-shaped"), "top": ("corked", "capped", "sprayed"), "label": ("square", "oval", "diamond")}, household.bottle),
    Family("umbrella", "{pattern} umbrella with {panels} panels, a {handle} handle and {accent} cloth",
           {"pattern": ("striped", "dotted", "panelled"), "panels": ("four", "six"), "handle": ("curved", "straight")}, household.umbrella),
    Family("backpack", "{shape} backpack with a {flap} {accent} flap and {pockets}",
           {"shape": ("round", "square"), "flap": ("straight", "pointed", "curved"), "pockets": ("one pocket", "two pockets")}, household.backpack),
    Family("bird", "{head} bird with a {beak} beak, a {tail} tail and a {accent} breast",
           {"head": ("smooth", "crested"), "beak": ("short", "long", "hooked"), "tail": ("forked", "fanned", "long")}, animals_and_plants.bird),
    Family("fish", "{body} {stripes} fish with a {tail} {accent} tail",
           {"body": ("deep-bodied", "slender"), "stripes": ("plain", "two-striped", "four-striped"), "tail": ("forked", "rounded")}, animals_and_plants.fish),
    Family("butterfly", "butterfly with {wings} wings, {hind_wings} hind wings and {spots} {accent} spot",
           {"wings": ("round", "pointed"), "hind wings": ("smooth", "tailed"), "spots": ("one", "two", "three")}, animals_and_plants.butterfly),
    Family("flower", "flower with {petals} {tips} petals, a {accent} heart and {leaves}",
           {"petals": ("five", "eight", "twelve"), "tips": ("rounded", "pointed"), "leaves": ("one leaf", "two leaves")}, animals_and_plants.flower),
    Family("house", "house with a {roof} {accent} roof, {windows} {panes} windows {chimney}",
           {"roof": ("gabled", "flat", "hipped"), "windows": ("two", "three"), "panes": ("square", "arched"), "chimney": ("", "with a chimney")}, buildings_and_shoes.house),
    Family("shoe", "{closing} {cut} shoe with {stripes} {accent} stripe",
           {"closing": ("laced", "strapped"), "cut": ("boot", "trainer", "slipper"), "stripes": ("one", "two", "three")}, buildings_and_shoes.shoe),
    Family("lighthouse", "{pattern} lighthouse with a {top} top, {windows} and {accent} paint {annex}",
           {"pattern": ("banded", "striped", "chequered"), "top": ("domed", "pointed", "flat"), "windows": ("one window", "two windows"),
            "annex": ("", "with a cottage")}, buildings_and_shoes.lighthouse),
)  # fmt: skip


def classes_of(family: Family, count: int, seed: int) -> list[ClassOf]:
    """`count` random classes of a family, balanced so that each value of each attribute appears about equally often.
    RealRAGError if the family has fewer combinations."""
    axes = {**family.axes, "accent": tuple(ACCENTS)}
    looks = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if count > len(looks):
        raise RealRAGError(f"The family {family.name} has {len(looks)} looks, not {count}. Ask for fewer siblings.")
    rng, chosen = random.Random(f"{seed}/{family.name}"), []
    rng.shuffle(looks)
    seen: dict[tuple[str, str], int] = {}
    while len(chosen) < count:
        best = min(looks, key=lambda look: sum(seen.get(item, 0) ** 2 for item in look.items()))
        looks.remove(best)
        chosen.append(ClassOf(family, best))
        for item in best.items():
            seen[item] = seen.get(item, 0) + 1
    return chosen
