"""Writes model.onnx of a folder: the recommender in config.json as a graph, whose tables and layers stay in
model.safetensors. Every bag of a table has as many lookups as `lookups` of the config says: Gather and ReduceSum, as
ONNX has no embedding-bag."""

import json
import struct
import sys

import numpy as np
from onnx import TensorProto, helper, numpy_helper, save

folder = sys.argv[1]
with open(f"{folder}/config.json", encoding="utf-8") as file:
    config = json.load(file)
with open(f"{folder}/model.safetensors", "rb") as file:
    (size,) = struct.unpack("<Q", file.read(8))
    header = json.loads(file.read(size))

nodes, initializers, inputs = [], [], []


def outside(name):
    """A tensor of model.safetensors, where it is."""
    entry = header[name]
    begin, end = entry["data_offsets"]
    tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=entry["shape"], data_location=TensorProto.EXTERNAL)
    for key, value in [("location", "model.safetensors"), ("offset", 8 + size + begin), ("length", end - begin)]:
        tensor.external_data.add(key=key, value=str(value))
    initializers.append(tensor)
    return name


def constant(name, values):
    initializers.append(numpy_helper.from_array(np.asarray(values, dtype=np.int64), name))
    return name


def op(kind, names, out, **attributes):
    nodes.append(helper.make_node(kind, names, [out], **attributes))
    return out


def linear(x, weight, bias=None):
    names = [x, outside(weight), *([outside(bias)] if bias else [])]
    return op("Gemm", names, f"{weight}:out", transB=1)


def mlp(x, names, is_last_linear):
    for i, name in enumerate(names):
        x = linear(x, f"{name}.weight", f"{name}.bias")
        if not is_last_linear or i < len(names) - 1:
            x = op("Relu", [x], f"{name}:relu")
    return x


is_dot = config["architecture"] == "dlrm"
rows = config["arch_embedding_size"] if is_dot else config["num_embeddings_per_feature"]
dim = config["arch_sparse_feature_size"] if is_dot else config["embedding_dim"]
features = config["arch_mlp_bot"][0] if is_dot else config["in_features"]
inputs.append(helper.make_tensor_value_info("dense", TensorProto.FLOAT, ["batch", features]))
table = "emb_l.{}.weight" if is_dot else "sparse_arch.embedding_bag_collection.embedding_bags.t_cat_{}.weight"
lookups_axis = constant("axis1", [1])
pooled = []
for i, lookups in enumerate(config["lookups"]):
    inputs.append(helper.make_tensor_value_info(f"t{i}", TensorProto.INT32, ["batch", lookups]))
    found = op("Gather", [outside(table.format(i)), f"t{i}"], f"rows{i}")
    pooled.append(op("ReduceSum", [found, lookups_axis], f"pooled{i}", keepdims=0))
if is_dot:
    x = mlp("dense", [f"bot_l.{2 * i}" for i in range(len(config["arch_mlp_bot"]) - 1)], False)
    vectors = [op("Unsqueeze", [one, lookups_axis], f"{one}:vector") for one in [x, *pooled]]
    stacked = op("Concat", vectors, "stacked", axis=1)
    products = op("MatMul", [stacked, op("Transpose", [stacked], "turned", perm=[0, 2, 1])], "products")
    flat = op("Reshape", [products, constant("flat", [0, len(vectors) ** 2])], "flat products")
    first, second = np.tril_indices(len(vectors), -1)
    pairs = op("Gather", [flat, constant("pairs", first * len(vectors) + second)], "chosen", axis=1)
    x = op("Concat", [x, pairs], "interaction", axis=1)
    top = [f"top_l.{2 * i}" for i in range(len(config["arch_mlp_top"]) - 1)]
else:
    x = mlp("dense", [f"dense_arch.model._mlp.{i}._linear" for i in range(len(config["dense_arch_layer_sizes"]))], False)
    x0 = x = op("Concat", [x, *pooled], "x0", axis=1)
    name = "inter_arch.crossnet."
    for i in range(config["dcn_num_layers"]):
        narrow = linear(x, f"{name}V_kernels.{i}")
        wide = linear(narrow, f"{name}W_kernels.{i}", f"{name}bias.{i}")
        x = op("Add", [op("Mul", [x0, wide], f"times{i}"), x], f"cross{i}")
    over = len(config["over_arch_layer_sizes"])
    top = [*(f"over_arch.model.0._mlp.{i}._linear" for i in range(over - 1)), "over_arch.model.1"]
op("Sigmoid", [mlp(x, top, True)], "prob")
out = helper.make_tensor_value_info("prob", TensorProto.FLOAT, ["batch", 1])
graph = helper.make_graph(nodes, "recommender", inputs, [out], initializers)
save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), f"{folder}/model.onnx")
