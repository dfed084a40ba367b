"""MovieLens ratings as samples: does a rating exceed 3.5? Each sample knows only what came before it."""

import csv
import math
import os
import re
from collections import defaultdict, deque

from samples import HISTORY, SampleList, part_of

# Chosen by the validation samples alone.
SETTINGS = {
    "dim": 12,
    "bottom": [32],
    "top": [64, 32, 1],
    "rate": 1e-3,
    "table_decay": 3,
    "epochs": 30,
    "patience": 12,
}
LIKED = 3.5
DECADES = 10  # rows of the table of release periods: up to 1929, then by decade, 2010 and later


def read(folder):
    """folder: holds ratings.csv and movies.csv of ml-latest-small, or of any MovieLens release in that form."""
    with open(os.path.join(folder, "ratings.csv"), newline="", encoding="utf-8") as file:
        ratings = [(int(r["timestamp"]), int(r["userId"]), int(r["movieId"]), float(r["rating"])) for r in csv.DictReader(file)]
    with open(os.path.join(folder, "movies.csv"), newline="", encoding="utf-8") as file:
        movies = {int(m["movieId"]): m for m in csv.DictReader(file)}
    ratings.sort(key=lambda rating: rating[0])

    users = {id_: i for i, id_ in enumerate(sorted({user for _, user, _, _ in ratings}))}
    seen = {id_: i for i, id_ in enumerate(sorted({movie for _, _, movie, _ in ratings}))}
    genre_names = sorted({name for movie in movies.values() for name in movie["genres"].split("|")})
    genre_of = {name: i for i, name in enumerate(genre_names)}
    genres = {id_: [genre_of[name] for name in movie["genres"].split("|")] for id_, movie in movies.items()}
    years = {id_: int(found[1]) for id_, m in movies.items() if (found := re.search(r"\((\d{4})\)\s*$", m["title"]))}

    tables = {
        "user": len(users),
        "movie": len(seen),
        "genres": len(genre_names),
        "liked history": len(seen),
        "disliked history": len(seen),
        "release period": DECADES,
    }
    samples = SampleList(tables)
    of_user = defaultdict(int)
    for _, user, _, _ in ratings:
        of_user[user] += 1
    first, user_count, movie_count = {}, defaultdict(int), defaultdict(int)
    liked = defaultdict(lambda: deque(maxlen=HISTORY))
    disliked = defaultdict(lambda: deque(maxlen=HISTORY))
    for time, user, movie, rating in ratings:
        days = (time - first.setdefault(user, time)) / 86400
        year = years.get(movie, 1990)
        dense = [
            math.log1p(user_count[user]) / 4,
            math.log1p(movie_count[movie]) / 4,
            (year - 1990) / 20,
            math.log1p(days) / 4,
        ]
        decade = min(max((year - 1920) // 10, 0), DECADES - 1)
        bags = [[users[user]], [seen[movie]], genres[movie], list(liked[user]), list(disliked[user]), [decade]]
        samples.add(dense, bags, rating > LIKED, part_of(user_count[user], of_user[user]))
        user_count[user] += 1
        movie_count[movie] += 1
        (liked if rating > LIKED else disliked)[user].append(seen[movie])
    return samples.finish({"names": {"genres": genre_names}})
