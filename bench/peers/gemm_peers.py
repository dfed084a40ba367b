"""The peers' part of gemm.mjs: one layer behind the other, all weights different. Prints seconds per layer by rows."""

import json
import os
import sys
import tempfile
import time

import numpy as np

task = json.loads(sys.argv[1])
INPUTS, OUTPUTS = task["inputs"], task["outputs"]
BYTES = {"f32": 4, "f16": 2, "bf16": 2, "int8": 1, "int4": 0.5}[task["format"]]
random = np.random.default_rng(1)
LAYERS = int(np.ceil(task["bytes"] / (INPUTS * OUTPUTS * BYTES)))


def weight():
    """Of such a size that activations keep theirs on their way through the chain."""
    return random.standard_normal((OUTPUTS, INPUTS), dtype=np.float32) / np.float32(INPUTS**0.5)


def numpy_chain():
    weights = [weight().T for _ in range(LAYERS)]

    def run(x):
        for w in weights:
            x = x @ w

    return np.__version__, run, lambda rows: random.standard_normal((rows, INPUTS), dtype=np.float32)


def torch_chain():
    import torch

    torch.set_num_threads(task["threads"])
    torch.set_grad_enabled(False)
    # Both from FBGEMM: weights rounded once, activations f32 (f16) or with 8 bits a row (int8).
    kinds = {"f16": torch.float16, "int8": torch.qint8}
    layers = []
    for _ in range(LAYERS):
        layer = torch.nn.Linear(INPUTS, OUTPUTS, bias=False)
        layer.weight.data = torch.from_numpy(weight())
        if task["format"] in kinds:
            wrapped = torch.nn.Sequential(layer)
            layer = torch.ao.quantization.quantize_dynamic(wrapped, {torch.nn.Linear}, dtype=kinds[task["format"]])
        if task["format"] == "bf16":
            layer = layer.to(torch.bfloat16)
        layers.append(layer)

    def run(x):
        for layer in layers:
            x = layer(x)

    dtype = torch.bfloat16 if task["format"] == "bf16" else torch.float32
    return torch.__version__, run, lambda rows: torch.randn(rows, INPUTS, dtype=dtype)


def onnx_chain():
    import onnx
    import onnxruntime
    from onnx import TensorProto, helper, numpy_helper

    nodes, initializers = [], []
    block = 32
    for i in range(LAYERS):
        names = [f"x{i}", f"w{i}"]
        out = f"x{i + 1}"
        if task["format"] == "f32":
            initializers.append(numpy_helper.from_array(np.ascontiguousarray(weight().T), f"w{i}"))
            nodes.append(helper.make_node("MatMul", names, [out]))
            continue
        if task["format"] == "int8":
            codes = random.integers(-127, 128, (INPUTS, OUTPUTS), dtype=np.int8)
            scale = np.full(OUTPUTS, 12**0.5 / 2**8 / INPUTS**0.5, dtype=np.float32)
            initializers.append(numpy_helper.from_array(codes, f"w{i}"))
            initializers.append(numpy_helper.from_array(scale, f"s{i}"))
            node = helper.make_node("DynamicQuantizeMatMul", [*names, f"s{i}"], [out], domain="com.microsoft")
            nodes.append(node)
            continue
        bits = 4
        codes = random.integers(0, 256, (OUTPUTS, INPUTS // block, block * bits // 8), dtype=np.uint8)
        # Codes are uniform around their middle: their spread times this is 1 / sqrt(INPUTS).
        scale = np.full(OUTPUTS * INPUTS // block, 12**0.5 / 2**bits / INPUTS**0.5, dtype=np.float32)
        initializers.append(numpy_helper.from_array(codes, f"w{i}"))
        initializers.append(numpy_helper.from_array(scale, f"s{i}"))
        node = helper.make_node(
            "MatMulNBits",
            [*names, f"s{i}"],
            [out],
            domain="com.microsoft",
            K=INPUTS,
            N=OUTPUTS,
            bits=bits,
            block_size=block,
            accuracy_level=4,  # 8-bit activations, as drover has them
        )
        nodes.append(node)
    value = lambda name, size: helper.make_tensor_value_info(name, TensorProto.FLOAT, ["rows", size])  # noqa: E731
    graph = helper.make_graph(nodes, "chain", [value("x0", INPUTS)], [value(f"x{LAYERS}", OUTPUTS)], initializers)
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = task["threads"]
    settings.log_severity_level = 3
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "chain.onnx")
        onnx.save(model, path, save_as_external_data=True)
        session = onnxruntime.InferenceSession(path, settings, providers=["CPUExecutionProvider"])

    def run(x):
        session.run(None, {"x0": x})

    return onnxruntime.__version__, run, lambda rows: random.standard_normal((rows, INPUTS), dtype=np.float32)


version, run, make_input = {"numpy": numpy_chain, "torch": torch_chain, "onnxruntime": onnx_chain}[task["engine"]]()
seconds = {}
for rows in task["rows"]:
    x = make_input(rows)
    for _ in range(2000 if LAYERS == 1 else 1):
        run(x)
    times = []
    end = time.perf_counter() + 2
    while len(times) < 3 or (time.perf_counter() < end and len(times) < (20000 if LAYERS == 1 else 50)):
        start = time.perf_counter()
        run(x)
        times.append((time.perf_counter() - start) / LAYERS)
    seconds[rows] = sorted(times)[len(times) // 2]
print(json.dumps({"version": version, "layers": LAYERS, "seconds": seconds}))
