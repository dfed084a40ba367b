"""DLRM with dot interaction, in the parameter names of facebookresearch/dlrm, and files that hold one."""

import json
import os
import struct

import torch
from torch import nn


def mlp(sizes, last):
    """Linear layers at even places, ReLU between them, `last` at the end: 0.weight, 0.bias, 2.weight, ..."""
    layers = []
    for place, (inputs, outputs) in enumerate(zip(sizes, sizes[1:])):
        layers += [nn.Linear(inputs, outputs), last if place == len(sizes) - 2 else nn.ReLU()]
    return nn.Sequential(*layers)


class Dlrm(nn.Module):
    def __init__(self, rows, dim, bottom, top):
        """rows per table; bottom: [features, ..., dim]; top: [..., 1], whose input follows from the interaction."""
        super().__init__()
        vectors = len(rows) + 1
        self.rows, self.dim, self.bottom = rows, dim, bottom
        self.top = [dim + vectors * (vectors - 1) // 2, *top]
        self.emb_l = nn.ModuleList(nn.EmbeddingBag(count, dim, mode="sum", include_last_offset=True) for count in rows)
        for table in self.emb_l:
            nn.init.normal_(table.weight, std=0.05)
        self.bot_l = mlp(bottom, nn.ReLU())
        self.top_l = mlp(self.top, nn.Sigmoid())
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, offset=-1), persistent=False)

    def forward(self, dense, bags):
        """dense [batch, features], bags: (indices, offsets [batch + 1]) per table -> logit [batch]."""
        x = self.bot_l(dense)
        pooled = [table(indices, offsets) for table, (indices, offsets) in zip(self.emb_l, bags)]
        vectors = torch.stack([x, *pooled], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return self.top_l[:-1](torch.cat([x, products], dim=1)).squeeze(1)

    def config(self):
        """config.json, in the flag names of facebookresearch/dlrm."""
        return {
            "architecture": "dlrm",
            "arch_sparse_feature_size": self.dim,
            "arch_embedding_size": self.rows,
            "arch_mlp_bot": self.bottom,
            "arch_mlp_top": self.top,
            "arch_interaction_op": "dot",
            "arch_interaction_itself": False,
            "pooling": "sum",
        }


def with_tables(model, kind):
    """A copy whose tables went through FBGEMM's row-wise rounding: kind 'f32' (none), 'int8' or 'int4'."""
    pack, unpack = {
        "f32": (lambda rows: rows, lambda rows: rows),
        "int8": (torch.ops.quantized.embedding_bag_byte_prepack, torch.ops.quantized.embedding_bag_byte_unpack),
        "int4": (torch.ops.quantized.embedding_bag_4bit_prepack, torch.ops.quantized.embedding_bag_4bit_unpack),
    }[kind]
    copy = Dlrm(model.rows, model.dim, model.bottom, model.top[1:])
    state = model.state_dict()
    copy.load_state_dict({name: unpack(pack(t)) if name.startswith("emb_l.") else t for name, t in state.items()})
    return copy


def write_safetensors(path, tensors):
    """f32 tensors by name: the length of a JSON header in 8 bytes, the header, the numbers."""
    header, at = {}, 0
    for name, tensor in tensors.items():
        size = tensor.numel() * 4
        header[name] = {"dtype": "F32", "shape": list(tensor.shape), "data_offsets": [at, at + size]}
        at += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for tensor in tensors.values():
            file.write(tensor.detach().contiguous().float().numpy().tobytes())


def save(folder, model, more):
    """config.json and model.safetensors; `more` is added to the config."""
    os.makedirs(folder, exist_ok=True)
    with open(os.path.join(folder, "config.json"), "w", encoding="utf-8") as file:
        json.dump({**model.config(), **more}, file, indent=1, ensure_ascii=False)
        file.write("\n")
    write_safetensors(os.path.join(folder, "model.safetensors"), model.state_dict())
