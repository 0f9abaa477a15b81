#!/usr/bin/env python3
"""Loss of an exported model of bytes in nats a byte over consecutive windows of the last tenth of a text.

    isoloss export --run RUN --format safetensors --out model
    python3 crates/train/benches/windows.py model tinyshakespeare.txt [--every 1]

What nano.py prints of its own model, for one that isoloss trained: each window of the context's length is read from its first
byte, without anything before it. Needs torch.
"""

import argparse
import json
import pathlib
import sys

import torch
import torch.nn.functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "tests"))
import load_model


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("text", type=pathlib.Path)
    parser.add_argument("--every", type=int, default=1, help="score every n-th window only")
    options = parser.parse_args()
    context = json.loads((options.model / "config.json").read_text())["model"]["context"]
    text = options.text.read_bytes()
    tail = text[len(text) * 9 // 10 :]
    # The weights are read once, not for every window.
    weights = load_model.tensors(options.model / "model.safetensors")
    load_model.tensors = lambda path: weights
    firsts = range(0, len(tail) - context, options.every * context)
    total = 0.0
    with torch.no_grad():
        for first in firsts:
            window = torch.tensor(list(tail[first : first + context + 1]))
            total += F.cross_entropy(load_model.logits(options.model, window[:-1]), window[1:]).item()
    print(f"{total / len(firsts):.4f} nats a byte over {len(firsts)} windows")


if __name__ == "__main__":
    main()
