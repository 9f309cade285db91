"""The sentences of the default corpus, by a grammar of our own.

Its words cover all 39 phones. Sentences of different parts share words, but no sentence.
"""

import random

_NAMES = "Joyce Roger Edith Hugh Claire Judy Vincent Theo Maya George Ruth Owen Zoe Nathan".split()
_PEOPLE = (
    "boy girl teacher farmer doctor baker lawyer singer judge nurse soldier sailor butcher "
    "neighbor father mother brother painter stranger thief youth child"
).split()
_ANIMALS = "fox horse rabbit mouse goose sheep tiger pigeon donkey turkey bear owl fish cow".split()
_THINGS = (
    "book toy coin watch ring basket bottle chair letter hammer engine feather oyster jacket "
    "sweater mirror bicycle camera pencil towel garage treasure cushion pudding orange sausage "
    "vision measure cloth thread"
).split()
_PLACES = (
    "kitchen garden office market forest river village harbor church beach bridge station "
    "museum theater house yard ocean valley south north"
).split()
_ADJECTIVES = (
    "young old small thick thin smooth rough yellow red blue quiet noisy clever foolish "
    "warm cool heavy light beige usual genuine huge loud annoying royal good full wooden"
).split()
_ACTIONS = (
    "found lost moved bought sold washed painted carried measured enjoyed watched pushed "
    "pulled dropped borrowed described forgot destroyed noticed raised shared chose"
).split()
_MOTIONS = "walked ran jumped wandered hurried slept shouted laughed sang waited turned".split()
_TIMES = (
    "today,yesterday,this morning,every evening,on Thursday,last August,before noon,"
    "after the show,once again,without pleasure,at five,in July"
).split(",")
_PLACING = "near behind under beyond above through around toward beside inside".split()

_TEMPLATES = (
    "the {adjective} {person} {action} a {thing} {time}",
    "{name} {action} the {adjective} {thing} {placing} the {place}",
    "the {animal} {motion} {placing} the {adjective} {place}",
    "my {person} {motion} {placing} the {place} {time}",
    "{name} and the {person} {action} their {thing}",
    "those {adjective} things were {placing} the {place}",
    "would you show the {thing} to {name} {time}",
    "we could hear the {adjective} {animal} {placing} the {place}",
    "she thinks the {thing} is {adjective} and {adjective2}",
    "nothing {placing} the {place} was as {adjective} as that {thing}",
    "his {person} gave {name} a {adjective} {thing}",
    "they usually {present} the {thing} with {name}",
)
_PRESENT = "choose share watch measure enjoy bring use fetch carry judge".split()
_SLOTS = {
    "name": _NAMES,
    "person": _PEOPLE,
    "animal": _ANIMALS,
    "thing": _THINGS,
    "place": _PLACES,
    "adjective": _ADJECTIVES,
    "adjective2": _ADJECTIVES,
    "action": _ACTIONS,
    "motion": _MOTIONS,
    "time": _TIMES,
    "placing": _PLACING,
    "present": _PRESENT,
}


def make_sentences(count: int, seed: int = 0) -> list[str]:
    """`count` different sentences; the first ones are the same for every count."""
    draw = random.Random(seed)
    found: dict[str, None] = {}
    while len(found) < count:
        words = {slot: draw.choice(choices) for slot, choices in _SLOTS.items()}
        found.setdefault(draw.choice(_TEMPLATES).format(**words))
    return list(found)
