"""Labelled samples of a recommender: dense features, one bag of indices per table and sample, labels."""

from dataclasses import dataclass, field

import numpy as np

TRAIN, VALIDATION, TEST = 0, 1, 2
HISTORY = 20


@dataclass
class Bags:
    """indices [lookups] int64 and offsets [samples + 1] int64: bag i is indices[offsets[i] : offsets[i + 1]]."""

    indices: np.ndarray
    offsets: np.ndarray

    def take(self, rows):
        """The bags of these samples, behind one another."""
        lengths = (self.offsets[1:] - self.offsets[:-1])[rows]
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        places = np.arange(offsets[-1]) + np.repeat(self.offsets[rows] - offsets[:-1], lengths)
        return Bags(self.indices[places], offsets)


@dataclass
class Samples:
    """dense [samples, features] f32, bags per table, label [samples] of 0 and 1, part [samples] of TRAIN, VALIDATION, TEST."""

    tables: dict  # name -> rows
    dense: np.ndarray
    bags: list
    label: np.ndarray
    part: np.ndarray
    preference: np.ndarray | None = None  # the probability that labels were drawn with, where it is known
    more: dict = field(default_factory=dict)  # what config.json says beside the architecture


class SampleList:
    """Collects samples one by one."""

    def __init__(self, tables):
        self.tables = tables
        self.dense, self.label, self.part, self.preference = [], [], [], []
        self.indices = [[] for _ in tables]
        self.offsets = [[0] for _ in tables]

    def add(self, dense, bags, label, part, preference=None):
        self.dense.append(dense)
        self.label.append(label)
        self.part.append(part)
        self.preference.append(preference)
        for table, bag in enumerate(bags):
            self.indices[table].extend(bag)
            self.offsets[table].append(len(self.indices[table]))

    def finish(self, more):
        known = self.preference[0] is not None
        return Samples(
            tables=self.tables,
            dense=np.asarray(self.dense, dtype=np.float32),
            bags=[Bags(np.asarray(i, dtype=np.int64), np.asarray(o, dtype=np.int64)) for i, o in zip(self.indices, self.offsets)],
            label=np.asarray(self.label, dtype=np.uint8),
            part=np.asarray(self.part, dtype=np.uint8),
            preference=np.asarray(self.preference, dtype=np.float32) if known else None,
            more=more,
        )


def part_of(position, count):
    """By time within a user: the first 80 % train, their last eighth chooses the step, the last 20 % test."""
    trained = int(count * 0.8)
    if position >= trained:
        return TEST
    return VALIDATION if position >= trained - trained // 8 else TRAIN
