#!/usr/bin/env python3
"""Runs an exported model in PyTorch: `load_model.py MODEL_DIR TOKEN...` prints the logits after each token as JSON.

MODEL_DIR is what `isoloss export --run RUN --format safetensors` writes. Needs torch and nothing else; read it as a
description of the network: pre-norm RMSNorm, rotary positions, causal attention, SwiGLU, and experts by top-k.
"""

import json
import pathlib
import sys

import torch
import torch.nn.functional as F


def tensors(path):
    """A safetensors file: the header's length, the header, the numbers."""
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    header = json.loads(raw[8 : 8 + length])
    header.pop("__metadata__", None)
    body = bytearray(raw[8 + length :])
    view = lambda t: torch.frombuffer(body, dtype=torch.float32, offset=t["data_offsets"][0], count=count(t["shape"]))
    return {name: view(t).reshape(t["shape"]) for name, t in header.items()}


def count(shape):
    return int(torch.tensor(shape).prod())


def norm(x, gain, epsilon):
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + epsilon) * gain


def turned(x, theta):
    """Rotary positions on [heads, T, width]: elements i and i + width / 2 are a pair."""
    half = x.shape[-1] // 2
    angle = torch.arange(x.shape[1])[:, None] * theta ** (-torch.arange(half) / half)
    low, high = x[..., :half], x[..., half:]
    return torch.cat([low * angle.cos() - high * angle.sin(), high * angle.cos() + low * angle.sin()], -1)


def swiglu(x, gate_up, down):
    gate, up = (x @ gate_up).chunk(2, -1)
    return (F.silu(gate) * up) @ down


def experts(x, part, spec, bias):
    """Top-k by probability plus balancing bias; weights are the chosen probabilities over their sum."""
    probability = (x @ part("router")).softmax(-1)
    chosen = (probability + bias).topk(spec["top_k"], -1).indices
    weight = probability.gather(-1, chosen)
    weight = weight / weight.sum(-1, keepdim=True)
    out = torch.zeros_like(x)
    for expert in range(spec["count"]):
        row, slot = (chosen == expert).nonzero(as_tuple=True)
        found = swiglu(x[row], part("experts_gate_up")[expert], part("experts_down")[expert])
        out.index_add_(0, row, found * weight[row, slot, None])
    if spec["shared_ff"]:
        out += swiglu(x, part("shared_gate_up"), part("shared_down"))
    return out


def logits(folder, tokens):
    config = json.loads((folder / "config.json").read_text())
    model, epsilon, theta = config["model"], config["norm_epsilon"], config["rope_theta"]
    weights = tensors(folder / "model.safetensors")
    x = weights["embedding"][tokens]
    for layer in range(model["layers"]):
        part = lambda name: weights[f"layers.{layer}.{name}"]
        qkv = norm(x, part("attention_norm"), epsilon) @ part("qkv")
        q, k, v = (h.reshape(len(tokens), model["heads"], -1).transpose(0, 1) for h in qkv.chunk(3, -1))
        mixed = F.scaled_dot_product_attention(turned(q, theta), turned(k, theta), v, is_causal=True)
        x = x + mixed.transpose(0, 1).reshape(x.shape) @ part("attention_out")
        h = norm(x, part("ff_norm"), epsilon)
        if model.get("experts"):
            bias = weights["router_bias"][layer] if "router_bias" in weights else 0.0
            x = x + experts(h, part, model["experts"], bias)
        else:
            x = x + swiglu(h, part("gate_up"), part("down"))
    head = weights["embedding"].T if model["tied"] else weights["head"]
    return norm(x, weights["final_norm"], epsilon) @ head


if __name__ == "__main__":
    with torch.no_grad():
        found = logits(pathlib.Path(sys.argv[1]), torch.tensor([int(token) for token in sys.argv[2:]]))
    json.dump(found.flatten().tolist(), sys.stdout)
