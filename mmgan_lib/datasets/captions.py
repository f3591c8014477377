"""English captions for ``Shapes``: many wordings, none of which tells more than it is asked to."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache

import numpy as np

# The words for each value of each attribute; the first is its name.
SYNONYMS = {
    "shape": {
        "circle": ("circle", "disc", "round dot"),
        "square": ("square", "box", "four-sided block"),
        "triangle": ("triangle", "three-sided figure", "wedge"),
        "star": ("star", "five-pointed star", "pentagram"),
        "cross": ("cross", "plus sign", "plus"),
        "ring": ("ring", "hoop", "doughnut"),
    },
    "colour": {
        "red": ("red", "crimson", "scarlet"),
        "orange": ("orange", "tangerine", "amber"),
        "yellow": ("yellow", "lemon", "gold"),
        "green": ("green", "emerald", "lime"),
        "blue": ("blue", "azure", "cobalt"),
        "purple": ("purple", "violet", "plum"),
        "pink": ("pink", "rose", "salmon"),
    },
    "size": {
        "small": ("small", "little", "tiny"),
        "medium": ("medium", "medium-sized", "mid-sized"),
        "large": ("large", "big", "huge"),
    },
    "place": {
        "top left": ("in the top left corner", "at the top left", "at the upper left"),
        "top": ("at the top", "at the upper edge", "near the top edge"),
        "top right": ("in the top right corner", "at the top right", "at the upper right"),
        "left": ("on the left", "at the left edge", "on the left side"),
        "centre": ("in the centre", "in the middle", "at the very centre"),
        "right": ("on the right", "at the right edge", "on the right side"),
        "bottom left": ("in the bottom left corner", "at the bottom left", "at the lower left"),
        "bottom": ("at the bottom", "at the lower edge", "near the bottom edge"),
        "bottom right": ("in the bottom right corner", "at the bottom right", "at the lower right"),
    },
}

# What a thing is called whose shape is not told.
NOUNS = ("thing", "object", "item")

# A part in brackets is left out where its attribute is not told.
TEMPLATES = (
    "[{size} ][{colour} ]{shape}[ {place}]",
    "[{colour} ]{shape}[, {size}][, {place}]",
    "a [{size} ][{colour} ]{shape}[ {place}]",
    "[{place}, ]a [{size} ][{colour} ]{shape}",
    "[{place}: ]one [{size} ][{colour} ]{shape}",
    "one [{size} ][{colour} ]{shape}[ {place}]",
    "a single [{size} ][{colour} ]{shape}[ {place}]",
    "just a [{size} ][{colour} ]{shape}[ {place}]",
    "nothing but a [{size} ][{colour} ]{shape}[ {place}]",
    "there is a [{size} ][{colour} ]{shape}[ {place}]",
    "[{place} ]there is a [{size} ][{colour} ]{shape}",
    "here is a [{size} ][{colour} ]{shape}[ {place}]",
    "here is a [{colour} ]{shape}[, {size}][, {place}]",
    "it is a [{size} ][{colour} ]{shape}[ {place}]",
    "this picture shows a [{size} ][{colour} ]{shape}[ {place}]",
    "[{place} ]the picture shows a [{size} ][{colour} ]{shape}",
    "an image of a [{size} ][{colour} ]{shape}[ {place}]",
    "a drawing of a [{size} ][{colour} ]{shape}[ {place}]",
    "a sketch of a {shape}[ in {colour}][, {size}][, {place}]",
    "we see a [{size} ][{colour} ]{shape}[ {place}]",
    "[{place} ]we see a [{size} ][{colour} ]{shape}",
    "what we see[ {place}] is a [{size} ][{colour} ]{shape}",
    "you can see a [{size} ][{colour} ]{shape}[ {place}]",
    "can you spot the [{size} ][{colour} ]{shape}[ {place}]?",
    "look at the [{size} ][{colour} ]{shape}[ {place}]",
    "someone drew a [{size} ][{colour} ]{shape}[ {place}]",
    "someone painted a [{size} ]{shape}[ in {colour}][, {place}]",
    "the [{size} ]{shape}[ {place}] was painted[ in {colour}]",
    "a [{size} ]{shape}[ that is {colour}][, {place}]",
    "a [{colour} ]{shape}[ that looks {size}][, {place}]",
    "we find a {shape}[ {place}][; it is {colour}][; it looks {size}]",
    "a {shape}[; its colour is {colour}][; it looks {size}][; it lies {place}]",
    "the scene holds a [{size} ][{colour} ]{shape}[ {place}]",
)

# Further ways of saying it, for texts in a wording that nobody was trained on.
UNSEEN_TEMPLATES = (
    "behold, {shape}[ coloured {colour}][ and {size} in size][, placed {place}]",
    "what my sister drew for us[ {place}] turned out to be some[ {size}][ {colour}] {shape}",
    "if you ask me[, {place},] that must be the[ {size}][ {colour}] {shape} I told you about",
    "I believe every visitor would notice this[ {size}][ {colour}] {shape}[ {place}]",
    "[{colour} is the paint; ]{shape} is the figure[; {size} is how I would call it][; its home is {place}]",
    "my notes say: figure {shape}[, paint {colour}][, extent {size}][, whereabouts {place}]",
    "[{place} ]hangs, rather[ {size} and] lonely, our beloved[ {colour}] {shape}",
    "who put that[ {size}][ {colour}] {shape}[ {place}]? certainly not me",
)


DRAWS = 5  # random numbers that a caption takes: the template, and the word for each attribute


def write(
    draws: np.ndarray, told: Mapping[str, Sequence[str]], templates: Sequence[str] = TEMPLATES
) -> tuple[str, ...]:
    """Writes a caption for each sample that tells the attributes in ``told`` and nothing about any other.

    Neither the template nor the synonyms depend on what is told.

    Args:
        draws: (B, DRAWS) in [0, 1): choose the template and the words for shape, colour, size and place.
        told: for some of these attributes, the names of the B values to tell.
        templates: ways of saying it.

    >>> write(np.full((1, DRAWS), 0.1), {"shape": ["star"], "colour": ["orange"]})
    ('an orange star',)
    """
    templates = [_telling(template, frozenset(told)) for template in templates]
    words = [
        [_choose(draw, SYNONYMS[name][value]) for draw, value in zip(column, told[name], strict=True)]
        if name in told
        else [_choose(draw, NOUNS) for draw in column]
        for name, column in zip(SYNONYMS, draws[:, 1:].T.tolist(), strict=True)
    ]
    captions = []
    for draw, *chosen in zip(draws[:, 0].tolist(), *words, strict=True):
        caption = _choose(draw, templates).format(**dict(zip(SYNONYMS, chosen, strict=True)))
        captions.append(re.sub(r"\ba (?=[aeiou])", "an ", caption))
    return tuple(captions)


@cache
def _telling(template: str, told: frozenset[str]) -> str:
    """Drops the brackets of a template, and the parts that would tell another attribute."""

    def part(match: re.Match[str]) -> str:
        return match[1] if re.search(r"{(\w+)}", match[1])[1] in told else ""

    return re.sub(r"\[(.*?)\]", part, template)


def _choose(draw: float, options: Sequence[str]) -> str:
    return options[int(draw * len(options))]
