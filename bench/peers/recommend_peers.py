"""The Python part of recommend.mjs: embedding-bags and whole recommenders in PyTorch, and FBGEMM's table-batched operator.

Prints one line of JSON: {"version", "pages", "results": {cell: {"seconds", "p99", "calls", "check"}}}. `seconds` is the
median of single calls, `check` the mean of the first output, by which engines are compared.
"""

import copy
import json
import mmap
import struct
import sys
import time
import warnings

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

task = json.loads(sys.argv[1])
torch.set_num_threads(task["threads"])
torch.set_num_interop_threads(1)
torch.set_grad_enabled(False)
FORMAT = task["format"]


def measure(call, next_request):
    """Times single calls for as long as the task says; making the request does not count."""
    seconds = task["milliseconds"] / 1000
    first = next_request()
    check = float(call(first).float().abs().mean())
    times = []
    for until, times in [(seconds / 5, []), (seconds, times)]:  # the first ones warm up
        end = time.perf_counter() + until
        while len(times) < 5 or (time.perf_counter() < end and len(times) < 200_000):
            request = next_request()
            start = time.perf_counter_ns()
            call(request)
            times.append(time.perf_counter_ns() - start)
    times.sort()
    at = lambda share: times[min(len(times) - 1, int(len(times) * share))] / 1e9  # noqa: E731
    return {"seconds": at(0.5), "p99": at(0.99), "calls": len(times), "check": check}


def owned(path, dtype, shape, offset=0):
    """A copy of a part of a file in memory of PyTorch's own, which THP_MEM_ALLOC_ENABLE puts into huge pages."""
    mapped = np.memmap(path, dtype=dtype, mode="r", shape=tuple(shape), offset=offset)
    out = torch.empty(tuple(shape), dtype=torch.from_numpy(np.empty(0, dtype)).dtype)
    out.numpy()[...] = mapped
    mapped._mmap.madvise(mmap.MADV_DONTNEED)
    return out


def huge_share(tensor):
    """Of a tensor's memory, the part in huge pages."""
    start, kib, inside = tensor.data_ptr(), 0, False
    with open("/proc/self/smaps", encoding="ascii") as file:
        for text in file:
            head = text.split(" ", 1)[0]
            if "-" in head and not text.startswith("VmFlags"):
                begin, end = (int(x, 16) for x in head.split("-"))
                inside = begin < start + tensor.nbytes and end > start
            elif inside and text.startswith("AnonHugePages:"):
                kib += int(text.split()[1])
    return min(1.0, kib * 1024 / tensor.nbytes)


def pages_of(tensor):
    return "2 MiB" if huge_share(tensor) > 0.5 else "4 KiB"


def bag_of_table(table):
    """call(indices, offsets [bags + 1]) -> [bags, dim] of PyTorch's own kernels, which are FBGEMM's."""
    if table.dtype != torch.uint8:
        return lambda indices, offsets: F.embedding_bag(indices, table, offsets, mode="sum", include_last_offset=True)
    quantized = torch.ops.quantized
    operator = {
        "int8": quantized.embedding_bag_byte_rowwise_offsets,
        "int4": quantized.embedding_bag_4bit_rowwise_offsets,
    }[FORMAT].default
    return lambda indices, offsets: operator(table, indices, offsets, False, 0, False, None, None, True)


def table_batched(table, rows, dim):
    """The same of FBGEMM's operator for many tables, given one. Its rows begin with scale and bias, both f16."""
    from fbgemm_gpu.split_embedding_configs import SparseType
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import EmbeddingLocation
    from fbgemm_gpu.split_table_batched_embeddings_ops_inference import IntNBitTableBatchedEmbeddingBagsCodegen
    from fbgemm_gpu.tbe.config.embedding_config import BoundsCheckMode

    kind = {"f32": SparseType.FP32, "f16": SparseType.FP16, "int8": SparseType.INT8, "int4": SparseType.INT4}[FORMAT]
    operator = IntNBitTableBatchedEmbeddingBagsCodegen(
        [("", rows, dim, kind, EmbeddingLocation.HOST)],
        device="cpu",
        output_dtype=SparseType.FP32,
        bounds_check_mode=BoundsCheckMode.NONE,
    )
    operator.initialize_weights()
    (target, _), *_ = operator.split_embedding_weights(split_scale_shifts=False)
    codes = {"int8": dim, "int4": dim // 2}.get(FORMAT)
    if codes is None:
        target.copy_(table.view(torch.uint8).reshape(rows, -1))
    else:
        parameters = table[:, codes:].contiguous().view(torch.float32 if FORMAT == "int8" else torch.float16)
        target[:, :4].copy_(parameters.half().view(torch.uint8))
        target[:, 4 : 4 + codes].copy_(table[:, :codes])
    return lambda indices, offsets: operator(indices, offsets)


def run_bag():
    rows, dim = task["rows"], task["dim"]
    dtype, width = {"f32": (np.float32, dim), "f16": (np.float16, dim)}.get(FORMAT, (np.uint8, task["rowBytes"]))
    table = owned(task["table"], dtype, (rows, width))
    pages = pages_of(table)
    streams = {name: torch.from_numpy(np.fromfile(path, dtype=np.int32)) for name, path in task["streams"].items()}
    bag = table_batched(table, rows, dim) if task["engine"] == "fbgemm" else bag_of_table(table)
    at = dict.fromkeys(streams, 0)
    results = {}
    for cell in task["cells"]:
        batch, pooling, distribution, cache = cell.split("-")
        offsets = torch.arange(int(batch) + 1, dtype=torch.int32) * int(pooling)
        count, stream = int(offsets[-1]), streams[distribution]
        fixed = stream[:count]
        is_first = True

        def request():
            nonlocal is_first
            # All engines begin with the same one, whose output is compared.
            if cache == "hot" or is_first:
                is_first = False
                return fixed
            start = at[distribution] if at[distribution] + count <= len(stream) else 0
            at[distribution] = start + count
            return stream[start : start + count]

        results[cell] = measure(lambda indices: bag(indices, offsets), request)
    return pages, results


class Mlp(nn.Module):
    def __init__(self, tensors, names):
        super().__init__()
        self.layers = nn.ModuleList(linear(tensors, f"{name}.weight", f"{name}.bias") for name in names)

    def forward(self, x, is_last_linear):
        for i, layer in enumerate(self.layers):
            x = layer(x)
            if not is_last_linear or i < len(self.layers) - 1:
                x = F.relu(x)
        return x


def linear(tensors, weight, bias=None):
    outputs, inputs = tensors[weight].shape
    layer = nn.Linear(inputs, outputs, bias=bias is not None)
    layer.weight.data = tensors[weight]
    if bias is not None:
        layer.bias.data = tensors[bias]
    return layer


class Dot(nn.Module):
    def __init__(self, vectors):
        super().__init__()
        self.pairs = torch.tril_indices(vectors, vectors, offset=-1)

    def forward(self, x, pooled):
        vectors = torch.stack([x, *pooled], dim=1)
        products = torch.bmm(vectors, vectors.transpose(1, 2))[:, self.pairs[0], self.pairs[1]]
        return torch.cat([x, products], dim=1)


class Cross(nn.Module):
    def __init__(self, tensors, layers):
        super().__init__()
        name = "inter_arch.crossnet."
        self.v = nn.ModuleList(linear(tensors, f"{name}V_kernels.{i}") for i in range(layers))
        self.w = nn.ModuleList(linear(tensors, f"{name}W_kernels.{i}", f"{name}bias.{i}") for i in range(layers))

    def forward(self, x, pooled):
        x0 = x = torch.cat([x, *pooled], dim=1)
        for v, w in zip(self.v, self.w):
            x = x0 * w(v(x)) + x
        return x


class Net(nn.Module):
    def __init__(self, config, tensors):
        super().__init__()
        if config["architecture"] == "dlrm":
            self.tables = [tensors[f"emb_l.{i}.weight"] for i in range(len(config["arch_embedding_size"]))]
            self.bottom = Mlp(tensors, [f"bot_l.{2 * i}" for i in range(len(config["arch_mlp_bot"]) - 1)])
            self.interaction = Dot(len(self.tables) + 1)
            self.top = Mlp(tensors, [f"top_l.{2 * i}" for i in range(len(config["arch_mlp_top"]) - 1)])
        else:
            sparse = "sparse_arch.embedding_bag_collection.embedding_bags.t_cat_"
            self.tables = [tensors[f"{sparse}{i}.weight"] for i in range(len(config["num_embeddings_per_feature"]))]
            dense, over = len(config["dense_arch_layer_sizes"]), len(config["over_arch_layer_sizes"])
            self.bottom = Mlp(tensors, [f"dense_arch.model._mlp.{i}._linear" for i in range(dense)])
            self.interaction = Cross(tensors, config["dcn_num_layers"])
            names = [f"over_arch.model.0._mlp.{i}._linear" for i in range(over - 1)]
            self.top = Mlp(tensors, [*names, "over_arch.model.1"])
        self.bags = [bag_of_table(table) for table in self.tables]

    def forward(self, dense, sparse):
        x = self.bottom(dense, False)
        pooled = [bag(indices, offsets) for bag, (indices, offsets) in zip(self.bags, sparse)]
        return torch.sigmoid(self.top(self.interaction(x, pooled), True))


def with_int8_layers(net):
    """The same tables, linear layers of 8 bits with activations rounded as they come."""
    warnings.simplefilter("ignore")
    quantized = copy.copy(net)
    quantized._modules = dict(net._modules)
    for name, module in net.named_children():
        layers = torch.ao.quantization.quantize_dynamic(module, {nn.Linear}, dtype=torch.qint8)
        quantized._modules[name] = layers
    return quantized


def read_tensors(path):
    with open(path, "rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(size))
    kinds = {"F32": np.float32, "U8": np.uint8}
    return {
        name: owned(path, kinds[entry["dtype"]], entry["shape"], 8 + size + entry["data_offsets"][0])
        for name, entry in header.items()
    }


def run_model():
    with open(f"{task['folder']}/config.json", encoding="utf-8") as file:
        config = json.load(file)
    net = Net(config, read_tensors(f"{task['folder']}/model.safetensors"))
    pages = pages_of(max(net.tables, key=lambda table: table.nbytes))
    nets = {"f32": net}
    if FORMAT == "int8":
        nets["int8"] = with_int8_layers(net)
    lookups = config["lookups"]
    features = torch.from_numpy(np.fromfile(f"{task['requests']}/dense.f32", dtype=np.float32)).reshape(task["samples"], -1)
    indices = [torch.from_numpy(np.fromfile(f"{task['requests']}/t{i}.i32", dtype=np.int32)) for i in range(len(lookups))]
    results = {}
    for cell in task["cells"]:
        batch = int(cell)
        offsets = [torch.arange(batch + 1, dtype=torch.int32) * count for count in lookups]
        at = 0

        def request():
            nonlocal at
            start = at if at + batch <= task["samples"] else 0
            at = start + batch
            own = zip(indices, offsets, lookups)
            return features[start:at], [(all_[start * n : at * n], o) for all_, o, n in own]

        # Layers of 8 bits are not always faster; the better of both counts.
        measured = []
        for layers, one in nets.items():
            at = 0
            measured.append({**measure(lambda asked: one(*asked), request), "layers": layers})
        results[cell] = min(measured, key=lambda one: one["seconds"])
    return pages, results


pages, results = run_bag() if task["kind"] == "bag" else run_model()
version = torch.__version__
if task["engine"] == "fbgemm":
    import fbgemm_gpu

    version = fbgemm_gpu.__version__
print(json.dumps({"version": version, "pages": pages, "results": results}))
