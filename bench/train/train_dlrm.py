"""Trains a DLRM and tells how well it predicts with tables in f32, int8 and int4.

    train_dlrm.py PATH [--out FOLDER]          on MovieLens ratings: PATH holds ratings.csv and movies.csv
    train_dlrm.py --synthetic [--out FOLDER]   on made-up people and dishes with a known taste; with --out also
                                               requests.jsonl, labelled, with the true preference

The same seed gives the same model on the same machine and version of PyTorch. One thread, less than a minute.
"""

import argparse
import copy
import json
import os

import numpy as np
import torch

import movielens
import synthetic
from dlrm import Dlrm, save, with_tables
from metrics import auc, log_loss, normalised_entropy
from samples import TEST, TRAIN, VALIDATION

BATCH = 256


def inputs(samples, rows):
    """What the model reads for these samples, and their labels."""
    bags = [bags.take(rows) for bags in samples.bags]
    dense = torch.from_numpy(samples.dense[rows])
    label = torch.from_numpy(samples.label[rows].astype(np.float32))
    return dense, [(torch.from_numpy(b.indices), torch.from_numpy(b.offsets)) for b in bags], label


def probabilities(model, samples, rows):
    """[len(rows)] of the model's click probabilities."""
    with torch.no_grad():
        return np.concatenate(
            [torch.sigmoid(model(*inputs(samples, part)[:2])).numpy() for part in np.array_split(rows, max(1, len(rows) // 4096))]
        )


def train(samples, settings, seed):
    """The model as it was when it judged the validation samples best, and that log loss."""
    torch.manual_seed(seed)
    random = np.random.default_rng(seed)
    model = Dlrm(
        list(samples.tables.values()), settings["dim"], [samples.dense.shape[1], *settings["bottom"], settings["dim"]], settings["top"]
    )
    optimiser = torch.optim.AdamW(
        [
            {"params": model.emb_l.parameters(), "weight_decay": settings["table_decay"]},
            {"params": [*model.bot_l.parameters(), *model.top_l.parameters()], "weight_decay": 0.01},
        ],
        lr=settings["rate"],
    )
    loss_of = torch.nn.BCEWithLogitsLoss()
    rows = np.flatnonzero(samples.part == TRAIN)
    validation = np.flatnonzero(samples.part == VALIDATION)
    best, kept, since = np.inf, None, 0
    for epoch in range(settings["epochs"]):
        random.shuffle(rows)
        batches = np.array_split(rows, len(rows) // BATCH)
        for step, part in enumerate(batches):
            dense, bags, label = inputs(samples, part)
            optimiser.zero_grad(set_to_none=True)
            loss_of(model(dense, bags), label).backward()
            optimiser.step()
            # A model of this size is at its best within a few passes, so it is looked at several times in each.
            if (step + 1) % max(1, len(batches) // 4) != 0:
                continue
            judged = log_loss(samples.label[validation], probabilities(model, samples, validation))
            since += 1
            if judged < best:
                best, kept, since = judged, copy.deepcopy(model.state_dict()), 0
        print(f"pass {epoch + 1}: log loss on validation {judged:.4f}, best {best:.4f}", flush=True)
        if since >= settings["patience"]:
            break
    model.load_state_dict(kept)
    return model


def report(model, samples):
    """Per kind of table what the test samples say."""
    test = np.flatnonzero(samples.part == TEST)
    label = samples.label[test]
    print(f"{len(test)} test samples, {label.mean():.3f} of them positive")
    for kind in ["f32", "int8", "int4"]:
        p = probabilities(with_tables(model, kind), samples, test)
        print(f"{kind:5} tables: AUC {auc(label, p):.4f}, log loss {log_loss(label, p):.4f}, NE {normalised_entropy(label, p):.4f}")
    zeroed = copy.deepcopy(model)
    for table in zeroed.emb_l:
        table.weight.data.zero_()
    print(f"tables zeroed: AUC {auc(label, probabilities(zeroed, samples, test)):.4f}")
    if samples.preference is not None:
        p = samples.preference[test]
        print(f"the true preference itself: AUC {auc(label, p):.4f}, log loss {log_loss(label, p):.4f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("path", nargs="?", help="folder of MovieLens")
    parser.add_argument("--synthetic", action="store_true")
    parser.add_argument("--out", help="folder for config.json, model.safetensors and, of synthetic ones, requests.jsonl")
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    if (args.path is None) != args.synthetic:
        parser.error("either the folder of MovieLens or --synthetic")
    torch.set_num_threads(1)

    source = synthetic if args.synthetic else movielens
    world = synthetic.World(args.seed) if args.synthetic else None
    samples = world.samples() if world else movielens.read(args.path)
    model = train(samples, source.SETTINGS, args.seed)
    report(model, samples)
    requests = world.requests() if world else []
    if world:
        synthetic.report_ranking(requests, samples.tables, lambda asked: probabilities(model, asked, np.arange(len(asked.label))))
    if args.out:
        save(args.out, model, {"tables": list(samples.tables), **samples.more})
        if world:
            with open(os.path.join(args.out, "requests.jsonl"), "w", encoding="utf-8") as file:
                for request in requests:
                    file.write(json.dumps(request.line(), ensure_ascii=False, separators=(",", ":")) + "\n")
        print(f"written to {args.out}")


if __name__ == "__main__":
    main()
