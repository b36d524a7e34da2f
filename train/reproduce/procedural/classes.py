"""The twenty families of the procedural world and their classes: every class is a look, and its name says the look.

Siblings differ in one to five such attributes. A never-seen class can so be asked for by words that others taught."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

from realrag.errors import RealRAGError

from . import animals_and_plants, household, vehicles
from .pen import Colour

ACCENTS: dict[str, Colour] = {
    "red": (205, 40, 40), "yellow": (240, 200, 40), "blue": (40, 80, 190), "green": (40, 150, 70), "pink": (235, 120, 170),
}  # fmt: skip

CONSONANTS, VOWELS, SYLLABLES = "bdfgklmnprstvz", "aeiou", 3


@dataclass(frozen=True)
class Family:
    """name: one word. says: the class's name, with attributes in braces; accent is one of ACCENTS. axes: attribute ->
    values. draw(pen, look, paint, accent)."""

    name: str
    says: str
    axes: dict[str, tuple[str, ...]]
    draw: Callable


@dataclass(frozen=True)
class ClassOf:
    """One fine class. look: attribute -> value, accent included."""

    family: Family
    look: dict[str, str]

    @property
    def folder(self) -> str:
        """Its name as a folder's, which the library reads as the class."""
        return self.name.replace(",", "").replace(" ", "-")

    @property
    def proper(self) -> str:
        """What a generator knows it by: a made-up word and the family. As "Audi 100" does not, it does not say the
        look; else a generator draws what it never saw by its name's words, and no reference is needed."""
        dice = random.Random(f"proper/{self.name}")
        return "".join(dice.choice(CONSONANTS) + dice.choice(VOWELS) for _ in range(SYLLABLES)) + f" {self.family.name}"

    @property
    def name(self) -> str:
        """The words that ask for it, unlike those of any other class."""
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
           {"roof": ("gabled", "flat", "hipped"), "windows": ("two", "three"), "panes": ("square", "arched"), "chimney": ("", "with a chimney")}, animals_and_plants.house),
    Family("shoe", "{closing} {cut} shoe with {stripes} {accent} stripe",
           {"closing": ("laced", "strapped"), "cut": ("boot", "trainer", "slipper"), "stripes": ("one", "two", "three")}, animals_and_plants.shoe),
    Family("lighthouse", "{pattern} lighthouse with a {top} top, {windows} and {accent} paint {annex}",
           {"pattern": ("banded", "striped", "chequered"), "top": ("domed", "pointed", "flat"), "windows": ("one window", "two windows"),
            "annex": ("", "with a cottage")}, animals_and_plants.lighthouse),
)  # fmt: skip


def classes_of(family: Family, count: int, seed: int) -> list[ClassOf]:
    """`count` looks by chance, spread so that each value of each attribute comes about equally often."""
    axes = {**family.axes, "accent": tuple(ACCENTS)}
    looks = [dict(zip(axes, values, strict=True)) for values in product(*axes.values())]
    if count > len(looks):
        raise RealRAGError(f"The family {family.name} has {len(looks)} looks, not {count}. Ask for fewer siblings.")
    dice, chosen = random.Random(f"{seed}/{family.name}"), []
    dice.shuffle(looks)
    seen: dict[tuple[str, str], int] = {}
    while len(chosen) < count:
        best = min(looks, key=lambda look: sum(seen.get(item, 0) ** 2 for item in look.items()))
        looks.remove(best)
        chosen.append(ClassOf(family, best))
        for item in best.items():
            seen[item] = seen.get(item, 0) + 1
    return chosen
