"""The GPU kernels compile for an H200 without one: what the interpreter cannot see, types, registers, memory."""

import json
import os
import subprocess
import sys

import pytest

pytest.importorskip("triton", reason="Triton is for Linux")
pytestmark = pytest.mark.slow  # about 8 s a kernel
SHARED_BYTES = 227 * 1024  # of one multiprocessor of compute capability 9.0
SPILLED_BYTES = 128  # a few registers beside 255 of them are no harm; thousands are another kernel
COMPILE = """
import importlib, json, re, subprocess, sys, tempfile
import triton, triton.language as tl
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

kernel, pointers, constants, options = json.loads(sys.argv[1])
module, name = kernel.split(".")
function = getattr(importlib.import_module(f"karui.ops.{module}.triton_kernels"), name)
signature, values = {}, {}
for place, parameter in enumerate(p.name for p in function.params):
    kind = pointers.get(parameter)
    if kind is not None:
        signature[parameter] = tuple(kind) if isinstance(kind, list) else kind
        absent = [i for i, k in enumerate(kind) if k == "constexpr"] if isinstance(kind, list) else []
        values |= {(place, i): None for i in absent}
    elif parameter in ("T", "B", "N", "K", "LENGTH"):
        signature[parameter] = "i32"
    else:
        signature[parameter] = "constexpr"
        value = constants.get(parameter)
        values[place,] = {"fp32": tl.float32, "bf16": tl.bfloat16}.get(value, value)
source = ASTSource(fn=function, signature=signature, constexprs=values)
options |= {"enable_fp_fusion": True}
made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
ptx = made.asm["ptx"]
with tempfile.NamedTemporaryFile(suffix=".ptx", mode="w") as file:
    file.write(ptx)
    file.flush()
    from triton.backends.nvidia.compiler import get_ptxas
    command = [get_ptxas(90).path, "-v", "--gpu-name=sm_90a", file.name, "-o", "/dev/null"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stderr
spilled = [int(n) for n in re.findall(r"(\\d+) bytes spill stores", said)]
print(json.dumps({"shared_bytes": made.metadata.shared, "spilled_bytes": max(spilled)}))
"""
HALF, FULL = "*bf16", "*fp32"
SCAN = {
    "D": 1,
    "G": 3,
    "H": 512,
    "SCALE": 1.3,
    "V1": False,
    "ACTIVATION": 1,
    "BLOCK": 32,
    "AHEAD": 8,
    "ACC": "fp32",
}
WALK = {"D": 2, "H": 512, "SUMMARY": False, "CHUNKED": True, "BLOCK": 32, "AHEAD": 16, "ACC": "fp32"}
LOOP = {"P": 200, "R": 60, "A": 5, "PW": 64, "RW": 64, "ROWS": 16, "ACTIVATION": 0, "PRECISION": "tf32x3"}
ONE_WARP = {"num_warps": 1}
SAMPLED = {"H": 256, "TERM": 2, "HITS": True, "LIMIT": 1 - 2**-23, "PRECISION": "tf32x3", "PRODUCT": "fp32"}
SAMPLED |= {"BLOCK_N": 64, "BLOCK_K": 64, "BLOCK_H": 32, "ACC": "fp32"}
EIGHT_WARPS = {"num_warps": 8}
NARROW = SAMPLED | {"TERM": 0, "HITS": False, "PRODUCT": "bf16"}


def named(names: str, kind: str) -> dict[str, str]:
    return dict.fromkeys(names.split(), kind)


KERNELS = [
    (
        "simple_recurrence.forward_kernel",
        {"sources": [HALF, HALF, "*u8"], "gates": [HALF, HALF]} | named("c_0 dropout h c c_n", HALF),
        SCAN,
        ONE_WARP,
    ),
    (
        "simple_recurrence.backward_kernel",
        {"sources": [FULL, FULL, "constexpr"], "gates": [FULL, FULL]}
        | named("c_0 dropout c grad_h grad_c_n grad_u grad_x sums grad_c_0", FULL),
        SCAN,
        ONE_WARP,
    ),
    (
        "linear_recurrence.forward_kernel",
        {"sources": [HALF, HALF, "constexpr"]} | named("first factors addends", FULL) | named("c c_n", HALF),
        WALK,
        ONE_WARP,
    ),
    (
        "linear_recurrence.backward_kernel",
        {"sources": [FULL, FULL, FULL, "*u8"]}
        | named("c_0 last grad_f grad_b grad_c_0 factors addends", FULL),
        WALK,
        ONE_WARP,
    ),
    (
        "linear_recurrence.carry_kernel",
        named("factors addends first carried", FULL),
        WALK | {"ROWS": 128},
        {"num_warps": 4},
    ),
    (
        "statistical_recurrence.feedback_kernel",
        named("projected weight_r bias_r weight_phi alphas y_0 phi r", FULL),
        LOOP,
        {"num_warps": 8, "num_stages": 1},
    ),
    (
        "statistical_recurrence.feedback_backward_kernel",
        named("grad_phi weight_r weight_phi alphas phi r pre_phi pre_r z z_0", FULL),
        LOOP,
        {"num_warps": 8, "num_stages": 1},
    ),
]
KERNELS += [
    (
        "sampled_logits.forward_kernel",
        {"arrays": [FULL, FULL, FULL, "*i64", "*i64"]} | named("first reduced log_totals odds", FULL),
        SAMPLED,
        EIGHT_WARPS,
    ),
    (
        "sampled_logits.forward_kernel",
        {"arrays": [HALF, HALF, FULL, "constexpr", "constexpr"]}
        | named("first reduced log_totals odds", FULL),
        NARROW,
        EIGHT_WARPS,
    ),
    (
        "sampled_logits.hidden_kernel",
        {"arrays": [FULL, FULL, FULL, "*i64", "*i64"]} | named("grad log_totals odds grad_x", FULL),
        SAMPLED,
        EIGHT_WARPS,
    ),
    (
        "sampled_logits.rows_kernel",
        {"arrays": [FULL, FULL, FULL, "*i64", "*i64"]}
        | named("grad log_totals odds grad_w grad_offset", FULL),
        SAMPLED,
        EIGHT_WARPS,
    ),
    (
        "row_update.sum_kernel",
        named("values total", HALF) | named("starts order", "*i64"),
        {"H": 256, "BLOCK": 256, "ACC": "fp32"},
        {},
    ),
    (
        "row_update.adagrad_kernel",
        named("values weight squares", FULL) | named("distinct starts order", "*i64") | {"rates": "*fp64"},
        {"H": 256, "BLOCK": 256, "ACC": "fp32"},
        {},
    ),
]
WALKED = {"H": 512, "SAVE": True, "STEPS": 8, "PIECE": 64, "ROWS": 16, "BLOCK": 512, "ACC": "fp32"}
SUMMED = WALKED | {"BLOCK": 128}
KERNELS += [
    (
        "tree_path.forward_kernel",
        named("hidden weight bias log_prob slope direction", FULL)
        | named("nodes rows", "*i32")
        | {"codes": "*u8", "offsets": "*i64"},
        WALKED,
        {"num_warps": 4},
    ),
    (
        "tree_path.forward_kernel",
        named("hidden weight", HALF)
        | named("log_prob slope direction", FULL)
        | named("nodes rows", "*i32")
        | {"codes": "*u8", "offsets": "*i64"},
        WALKED | {"H": 4000, "STEPS": 1, "BLOCK": 4096},
        {"num_warps": 4},
    ),
    (
        "tree_path.piece_kernel",
        {"steps": [HALF, FULL, FULL, "*i32", "*i64"], "met": "*i32"}
        | named("of_pieces of_bias_pieces", FULL),
        SUMMED,
        {},
    ),
    (
        "tree_path.node_kernel",
        {"steps": [FULL, FULL, FULL, "*i32", "*i64"]}
        | named("starts places", "*i64")
        | named("of_pieces of_bias_pieces of_weight of_bias", FULL),
        SUMMED,
        {},
    ),
    (
        "tree_path.node_kernel",
        {"steps": [HALF, FULL, FULL, "*i32", "*i64"], "starts": "*i64"}
        | named("of_pieces of_bias_pieces", FULL)
        | named("of_weight of_bias", HALF),
        SUMMED,
        {},
    ),
    (
        "tree_path.paths_kernel",
        named("parent of_leaves nodes", "*i32")
        | named("depth codes", "*u8")
        | named("leaves offsets", "*i64"),
        {"BLOCK": 128},
        {"num_warps": 4},
    ),
]


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel[0])
def test_compiles_and_fits(kernel, tmp_path) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-c", COMPILE, json.dumps(kernel)],
        env=environment | {"TRITON_CACHE_DIR": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout)
    assert found["shared_bytes"] <= SHARED_BYTES
    assert found["spilled_bytes"] <= SPILLED_BYTES
