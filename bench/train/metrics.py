"""How good probabilities are."""

import numpy as np


def auc(label, score):
    """The chance that a positive has a higher score than a negative; ties count half. label [n] of 0 and 1, score [n]."""
    label = np.asarray(label, dtype=bool)
    _, place, count = np.unique(score, return_inverse=True, return_counts=True)
    # The mean rank of a group of equal scores.
    rank = (np.cumsum(count) - (count - 1) / 2)[place]
    positives = int(label.sum())
    negatives = len(label) - positives
    if positives == 0 or negatives == 0:
        raise ValueError("AUC needs labels of both kinds")
    return float((rank[label].sum() - positives * (positives + 1) / 2) / (positives * negatives))


def log_loss(label, probability):
    """Mean of -log of the probability that was given to what happened, in nats."""
    p = np.clip(np.asarray(probability, dtype=np.float64), 1e-7, 1 - 1e-7)
    return float(-np.mean(np.where(np.asarray(label, dtype=bool), np.log(p), np.log(1 - p))))


def normalised_entropy(label, probability):
    """Log loss by that of the mean label: below 1 where probabilities tell something."""
    mean = float(np.mean(label))
    return log_loss(label, probability) / log_loss(label, np.full(len(label), mean))
