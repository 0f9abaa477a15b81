#!/usr/bin/env python3
"""The size of nanoGPT's CPU recipe in PyTorch: 4 layers, 4 heads, width 128, context 64, bytes, 2,000 steps of 12 windows.

    python3 crates/train/benches/nano.py tinyshakespeare.txt [--compile] [--rate 4e-3]

Prints the loss in nats a byte over consecutive windows of the last tenth, and the wall time from the first line of this
file on. `isoloss up sweeps/shakespeare.toml --set corpus.paths='["tinyshakespeare.txt"]'` is the other side, and windows.py scores
its model over the same windows.
"""

import time

BEGAN = time.time()

import argparse
import math

import torch
import torch.nn.functional as F

LAYERS, HEADS, WIDTH, CONTEXT, FF, BATCH, STEPS, WARMUP = 4, 4, 128, 64, 344, 12, 2000, 100


def turned(x, cosine, sine):
    low, high = x.chunk(2, -1)
    return torch.cat([low * cosine - high * sine, high * cosine + low * sine], -1)


class Layer(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.between = torch.nn.RMSNorm(WIDTH), torch.nn.RMSNorm(WIDTH)
        linear = lambda a, b: torch.nn.Linear(a, b, bias=False)
        self.qkv, self.out = linear(WIDTH, 3 * WIDTH), linear(WIDTH, WIDTH)
        self.gate_up, self.down = linear(WIDTH, 2 * FF), linear(FF, WIDTH)

    def forward(self, x, cosine, sine):
        batch, length, _ = x.shape
        heads = self.qkv(self.before(x)).view(batch, length, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        q, k, v = turned(heads[0], cosine, sine), turned(heads[1], cosine, sine), heads[2]
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, WIDTH))
        gate, up = self.gate_up(self.between(x)).chunk(2, -1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding = torch.nn.Embedding(256, WIDTH)
        self.layers = torch.nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm, self.head = torch.nn.RMSNorm(WIDTH), torch.nn.Linear(WIDTH, 256, bias=False)
        half = WIDTH // HEADS // 2
        angle = torch.arange(CONTEXT)[:, None] * 10_000.0 ** (-torch.arange(half) / half)
        self.register_buffer("cosine", angle.cos())
        self.register_buffer("sine", angle.sin())
        for weight in [self.embedding.weight, self.head.weight]:
            torch.nn.init.normal_(weight, std=0.02)

    def forward(self, tokens):
        x = self.embedding(tokens[:, :-1])
        for layer in self.layers:
            x = layer(x, self.cosine, self.sine)
        return F.cross_entropy(self.head(self.norm(x)).flatten(0, 1), tokens[:, 1:].flatten())


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text")
    parser.add_argument("--compile", action="store_true")
    parser.add_argument("--rate", type=float, default=4e-3)
    options = parser.parse_args()
    torch.manual_seed(1)
    data = torch.frombuffer(bytearray(open(options.text, "rb").read()), dtype=torch.uint8).long()
    split = len(data) * 9 // 10
    train, tail = data[:split], data[split:]
    model = Model()
    decayed = [weight for weight in model.parameters() if weight.dim() > 1]
    rest = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": decayed, "weight_decay": 0.1}, {"params": rest, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.99), fused=True)
    step_of = torch.compile(model) if options.compile else model
    for step in range(STEPS):
        share = max(0.0, (step - WARMUP) / (STEPS - WARMUP))
        rate = options.rate * min((step + 1) / WARMUP, 0.1 + 0.45 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        first = torch.randint(split - CONTEXT, (BATCH, 1))
        loss = step_of(train[first + torch.arange(CONTEXT + 1)])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    trained = time.time()
    windows = tail[: (len(tail) - 1) // CONTEXT * CONTEXT + 1].unfold(0, CONTEXT + 1, CONTEXT)
    with torch.no_grad():
        nats = sum(model(part).item() * len(part) for part in windows.split(256)) / len(windows)
    print(f"{nats:.4f} nats a byte; {trained - BEGAN:.1f} s to the last step, {time.time() - BEGAN:.1f} s in all")


if __name__ == "__main__":
    main()
