"""llama.cpp through the C functions of llama-cpp-python, by the protocol of measure.mjs: one llama_decode per step, all
sequences of a batch in it, flash attention on. Prints one line of JSON."""

import ctypes
import json
import os
import sys
import time

task = json.loads(sys.argv[1])
load_start = time.perf_counter()

import llama_cpp as ll  # noqa: E402  (its import is part of loading)
import numpy as np  # noqa: E402

BATCH = 512

# Nothing of the library's own on stderr; the reference keeps the callback alive.
silent = ll.llama_log_callback(lambda level, text, user: None)
ll.llama_log_set(silent, ctypes.c_void_p(0))
ll.llama_backend_init()

model_parameters = ll.llama_model_default_params()
model_parameters.n_gpu_layers = 0
model = ll.llama_model_load_from_file(task["path"].encode(), model_parameters)
if not model:
    sys.exit("the model could not be loaded")
parameters = ll.llama_context_default_params()
parameters.n_ctx = task["contextLength"] * task["sequences"]
parameters.n_batch = BATCH
parameters.n_ubatch = BATCH
parameters.n_seq_max = task["sequences"]
parameters.n_threads = task["threads"]
parameters.n_threads_batch = task["threads"]
parameters.flash_attn_type = ll.LLAMA_FLASH_ATTN_TYPE_ENABLED
context = ll.llama_init_from_model(model, parameters)
if not context:
    sys.exit("the context could not be made")
vocabulary = ll.llama_vocab_n_tokens(ll.llama_model_get_vocab(model))
batch = ll.llama_batch_init(BATCH, 0, 1)
salt = os.getpid()


def prompt(length):
    """Tokens that no cache has seen."""
    global salt
    salt += 1
    state = (salt * 2654435761 + 12345) & 0xFFFFFFFF
    tokens = []
    for _ in range(length):
        state = (state * 1664525 + 1013904223) & 0xFFFFFFFF
        tokens.append(300 + state % (vocabulary - 1000))
    return tokens


def decode(rows):
    """One llama_decode of (token, position, sequence, wants logits); returns the likeliest token of each that wants."""
    batch.n_tokens = len(rows)
    for i, (token, position, sequence, wanted) in enumerate(rows):
        batch.token[i] = token
        batch.pos[i] = position
        batch.n_seq_id[i] = 1
        batch.seq_id[i][0] = sequence
        batch.logits[i] = 1 if wanted else 0
    if ll.llama_decode(context, batch) != 0:
        sys.exit("llama_decode failed")
    drawn = []
    for i, (_, _, _, wanted) in enumerate(rows):
        if wanted:
            logits = np.ctypeslib.as_array(ll.llama_get_logits_ith(context, i), shape=(vocabulary,))
            drawn.append(int(logits.argmax()))
    return drawn


def begin(prompts):
    """Forgets all sequences, reads these prompts, returns the first token of each."""
    ll.llama_memory_clear(ll.llama_get_memory(context), True)
    rows = [
        (token, position, sequence, position == len(tokens) - 1)
        for sequence, tokens in enumerate(prompts)
        for position, token in enumerate(tokens)
    ]
    drawn = []
    for start in range(0, len(rows), BATCH):
        drawn += decode(rows[start : start + BATCH])
    return drawn


def write(prompts, drawn, count):
    """Writes `count` tokens to each sequence."""
    for i in range(count):
        drawn = decode([(token, len(prompts[s]) + i, s, True) for s, token in enumerate(drawn)])


begin([prompt(16)])
results = {"load": time.perf_counter() - load_start}
warm = [prompt(16)]
write(warm, begin(warm), 3)
for what in task["want"]:
    kind, size = what.split("-")
    size = int(size)
    prompts = [prompt(16) for _ in range(size)] if kind == "batch" else [prompt(size)]
    start = time.perf_counter()
    first = begin(prompts)
    begun = time.perf_counter()
    if kind == "prompt":
        results[what] = size / (begun - start)
    else:
        count = task["decodeTokens"]
        write(prompts, first, count)
        results[what] = len(prompts) * count / (time.perf_counter() - begun)
print(
    json.dumps(
        {
            "engine": "llama-cpp-python",
            "version": ll.__version__,
            "info": {"threads": task["threads"], "systemInfo": ll.llama_print_system_info().decode()},
            "results": results,
        }
    )
)
