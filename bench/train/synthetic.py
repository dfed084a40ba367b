"""People who like or dislike dishes, with a taste that is known: what a model should learn, beside what it did.

A dish is a flavour, an ingredient and a kind ("smoky lentil soup"). A person's taste is a mixture of a few archetypes
and something of their own: a number per tag. The logit of liking a dish is the sum of the taste for its three tags, how
good the dish is, and the moment: warm dishes when it is cold, sweet ones late in the day. Labels are drawn with that
probability, so no model can know them all; the best possible AUC is that of the probability itself.
"""

import math
from collections import deque
from dataclasses import dataclass

import numpy as np

from samples import HISTORY, TEST, SampleList, part_of

SETTINGS = {
    "dim": 12,
    "bottom": [32],
    "top": [64, 32, 1],
    "rate": 2e-3,
    "table_decay": 1,
    "epochs": 30,
    "patience": 12,
}

PEOPLE, EVENTS, ARCHETYPES = 240, 600, 6
REQUESTS, CANDIDATES = 40, 40
# (flavours, ingredients, kinds with how warm they are)
SAVOURY = (
    ["smoky", "spicy", "sour", "herby", "creamy", "peppery", "garlicky", "crunchy"],
    ["lentil", "mushroom", "trout", "chickpea", "spinach", "potato", "beetroot", "tofu", "chicken", "pumpkin"],
    {"soup": 1.0, "stew": 1.2, "salad": -1.2, "pie": 0.4, "noodles": 0.2, "curry": 0.6, "sandwich": -0.4, "dumplings": 0.5},
)
SWEET = (
    ["honeyed", "gingery", "salted", "caramel", "lemony"],
    ["apple", "plum", "pear", "walnut", "cherry", "rhubarb"],
    {"cake": 0.2, "pudding": 0.6, "sorbet": -1.4, "crumble": 0.8, "tart": 0.0},
)
SYLLABLES = ["a", "be", "da", "el", "fi", "go", "ha", "io", "ka", "li", "ma", "no", "or", "pe", "ri", "sa", "tu", "va", "wen", "zo"]


@dataclass
class Request:
    """One person at one moment and some dishes to rank: rows of dense and bags, one per dish."""

    person: str
    likes: list
    dislikes: list
    dishes: list  # names
    dense: list
    bags: list  # per table, per row
    label: list
    preference: list

    def line(self):
        """As requests.jsonl has it. `sparse` is a list of bags per table, a bag being a list of indices."""
        return {
            "id": self.person,
            "likes": self.likes,
            "dislikes": self.dislikes,
            "items": self.dishes,
            "dense": [[round(float(x), 4) for x in row] for row in self.dense],
            "sparse": self.bags,
            "label": self.label,
            "preference": [round(p, 4) for p in self.preference],
        }


class World:
    def __init__(self, seed):
        self.random = random = np.random.default_rng(seed)
        self.tags, self.dishes, tags_of, warm, sweet = [], [], [], [], []
        for is_sweet, (flavours, ingredients, kinds) in enumerate([SAVOURY, SWEET]):
            start = len(self.tags)
            self.tags += [*flavours, *ingredients, *kinds]
            for f, flavour in enumerate(flavours):
                for i, ingredient in enumerate(ingredients):
                    for k, (kind, warmth) in enumerate(kinds.items()):
                        self.dishes.append(f"{flavour} {ingredient} {kind}")
                        tags_of.append([start + f, start + len(flavours) + i, start + len(flavours) + len(ingredients) + k])
                        warm.append(warmth)
                        sweet.append(is_sweet)
        self.tags_of, self.warm, self.sweet = np.array(tags_of), np.array(warm), np.array(sweet)
        self.quality = 0.4 * random.standard_normal(len(self.dishes))
        archetypes = random.standard_normal((ARCHETYPES, len(self.tags)))
        mixture = random.dirichlet(np.full(ARCHETYPES, 0.3), PEOPLE)
        self.taste = 1.1 * mixture @ archetypes + 0.3 * random.standard_normal((PEOPLE, len(self.tags)))
        names = set()
        while len(names) < PEOPLE:
            names.add("".join(random.choice(SYLLABLES, 2 + random.integers(2))).capitalize())
        self.people = sorted(names)
        self.tables = {
            "person": PEOPLE,
            "dish": len(self.dishes),
            "tags": len(self.tags),
            "liked dishes": len(self.dishes),
            "disliked dishes": len(self.dishes),
            "tags of liked dishes": len(self.tags),
        }
        self.liked = [deque(maxlen=HISTORY) for _ in range(PEOPLE)]
        self.disliked = [deque(maxlen=HISTORY) for _ in range(PEOPLE)]
        self.eaten = np.zeros(PEOPLE, dtype=int)
        self.served = np.zeros(len(self.dishes), dtype=int)

    def preference(self, person, dish, temperature, evening):
        """The probability that the person likes the dish at this moment."""
        logit = (
            self.taste[person, self.tags_of[dish]].sum()
            + self.quality[dish]
            - 0.6 * self.warm[dish] * temperature
            + self.sweet[dish] * (1.2 * evening - 0.8)
            - 0.2
        )
        return float(1 / (1 + math.exp(-logit)))

    def moment(self):
        """(temperature, about -2 to 2; how late in the day, 0 to 1)"""
        return float(self.random.standard_normal()), float(self.random.random())

    def features(self, person, dish, temperature, evening):
        """dense, bags: what the model is told, all of it known before the answer."""
        dense = [temperature, evening, math.log1p(self.eaten[person]) / 4, math.log1p(self.served[dish]) / 4]
        liked = list(self.liked[person])
        tags = self.tags_of[liked].ravel().tolist() if liked else []
        bags = [[person], [int(dish)], self.tags_of[dish].tolist(), liked, list(self.disliked[person]), tags]
        return dense, bags

    def samples(self):
        """Everybody's days, in turn, so that histories grow side by side. To be called once."""
        samples = SampleList(self.tables)
        for _ in range(EVENTS):
            for person in self.random.permutation(PEOPLE).tolist():
                dish = int(self.random.integers(len(self.dishes)))
                moment = self.moment()
                p = self.preference(person, dish, *moment)
                label = bool(self.random.random() < p)
                samples.add(*self.features(person, dish, *moment), label, part_of(self.eaten[person], EVENTS), p)
                self.eaten[person] += 1
                self.served[dish] += 1
                (self.liked if label else self.disliked)[person].append(dish)
        names = {"person": self.people, "dish": self.dishes, "tags": self.tags}
        return samples.finish({"dense": ["temperature", "evening", "meals so far", "times served"], "names": names})

    def requests(self):
        """After all events: people at a moment that they have not met, and dishes drawn for them."""
        out = []
        for person in self.random.choice(PEOPLE, REQUESTS, replace=False).tolist():
            moment = self.moment()
            dishes = self.random.choice(len(self.dishes), CANDIDATES, replace=False).tolist()
            rows = [self.features(person, dish, *moment) for dish in dishes]
            preference = [self.preference(person, dish, *moment) for dish in dishes]
            order = np.argsort(self.taste[person])
            out.append(
                Request(
                    person=self.people[person],
                    likes=[self.tags[tag] for tag in order[::-1][:4]],
                    dislikes=[self.tags[tag] for tag in order[:4]],
                    dishes=[self.dishes[dish] for dish in dishes],
                    dense=[dense for dense, _ in rows],
                    bags=[[bags[table] for _, bags in rows] for table in range(len(self.tables))],
                    label=[int(self.random.random() < p) for p in preference],
                    preference=preference,
                )
            )
        return out


def samples_of(request, tables):
    """A request's rows as samples."""
    samples = SampleList(tables)
    for i, (dense, label, p) in enumerate(zip(request.dense, request.label, request.preference)):
        samples.add(dense, [bags[i] for bags in request.bags], label, TEST, p)
    return samples.finish({})


def report_ranking(requests, tables, probabilities, top=5):
    """How good the model's first dishes are by the true preference, and how many pairs of dishes it puts in order."""
    chosen, best, mean, ordered = [], [], [], []
    for request in requests:
        truth = np.array(request.preference)
        score = probabilities(samples_of(request, tables))
        chosen.append(truth[np.argsort(-score)[:top]].mean())
        best.append(np.sort(truth)[-top:].mean())
        mean.append(truth.mean())
        first, second = np.triu_indices(len(truth), 1)
        ordered.append(((score[first] > score[second]) == (truth[first] > truth[second])).mean())
    print(
        f"{len(requests)} requests: true preference of the model's first {top} {np.mean(chosen):.3f}, "
        f"of the best {top} {np.mean(best):.3f}, of all dishes {np.mean(mean):.3f}; pairs in order {np.mean(ordered):.3f}"
    )
