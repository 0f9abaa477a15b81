#!/usr/bin/env python3
"""The same transformer in PyTorch, for torchrun: several processes train one run together and rank 0 speaks.

    torchrun --standalone --nproc-per-node 2 torch_gpt.py

Each process takes its share of every batch; gradients are averaged (gloo on cores, NCCL on GPUs). Only rank 0 reads
stdin and writes stdout; the others hear of the run, and of a stop, from it. Dense models only; schedules cosine and WSD.
Data order and initial weights are its own, so its losses are near those of isoloss's engines and not equal to them.
"""

import json
import math
import os
import signal
import struct
import sys
import threading
import time

import torch
import torch.distributed as dist
import torch.nn.functional as F

stop = threading.Event()


class Block(torch.nn.Module):
    def __init__(self, width, heads, ff):
        super().__init__()
        self.heads = heads
        self.before, self.between = torch.nn.RMSNorm(width), torch.nn.RMSNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width, bias=False)
        self.mix = torch.nn.Linear(width, width, bias=False)
        self.up = torch.nn.Linear(width, 2 * ff, bias=False)
        self.down = torch.nn.Linear(ff, width, bias=False)

    def forward(self, x, turn):
        batch, length, width = x.shape
        q, k, v = self.qkv(self.before(x)).view(batch, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(rotate(q, turn), rotate(k, turn), v, is_causal=True)
        x = x + self.mix(y.transpose(1, 2).reshape(batch, length, width))
        gate, up = self.up(self.between(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Model(torch.nn.Module):
    def __init__(self, shape):
        super().__init__()
        width = shape["width"]
        self.embedding = torch.nn.Embedding(shape["vocab"], width)
        self.blocks = torch.nn.ModuleList(Block(width, shape["heads"], shape["ff"]) for _ in range(shape["layers"]))
        self.last = torch.nn.RMSNorm(width)
        self.head = torch.nn.Linear(width, shape["vocab"], bias=False)
        for weight in self.parameters():
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, std=0.02)
        if shape.get("tied"):
            self.head.weight = self.embedding.weight
        half = width // shape["heads"] // 2
        angles = torch.arange(shape["context"])[:, None] * 10000.0 ** (-torch.arange(half) / half)
        self.register_buffer("turn", torch.stack((angles.cos(), angles.sin())), persistent=False)

    def forward(self, tokens):
        x = self.embedding(tokens)
        for block in self.blocks:
            x = block(x, self.turn[:, : tokens.shape[1]])
        return self.head(self.last(x))

    def counts(self, shape):
        total = sum(weight.numel() for weight in self.parameters())
        tables = shape["vocab"] * shape["width"] * (1 if shape.get("tied") else 2)
        counts = {"total": total, "non_embedding": total - tables, "active": total, "active_non_embedding": total - tables}
        return {"params_" + name: count for name, count in counts.items()}


def rotate(x, turn):
    a, b = x.chunk(2, dim=-1)
    cos, sin = turn
    return torch.cat((a * cos - b * sin, a * sin + b * cos), dim=-1)


class Voice:
    """What rank 0 says; the other ranks are silent."""

    def __init__(self, order, rank):
        self.order, self.rank = order, rank

    def say(self, event, **fields):
        if self.rank == 0:
            line = {"event": event, "run_id": self.order["run_id"], "attempt": self.order["attempt"], **fields}
            print(json.dumps(line, allow_nan=False), flush=True)


def stream(folder, part, vocab):
    with open(os.path.join(folder, part + ".tokens"), "rb") as file:
        kind = torch.uint8 if vocab <= 256 else torch.uint16 if vocab <= 65536 else torch.int32
        return torch.frombuffer(bytearray(file.read()), dtype=kind).long()


def chosen(folder, limit):
    """Tokens and bytes of the first validation documents that fit into `limit`, and where each begins."""
    length, size, starts = 0, 0, []
    with open(os.path.join(folder, "validation.documents"), "rb") as file:
        for tokens, text, _ in struct.iter_unpack("<QQd", file.read()):
            if size and size + text > limit:
                break
            starts.append(length)
            length, size = length + tokens, size + text
    return length, size, starts


@torch.no_grad()
def score(model, text, folder, limit, context, rank, world, device):
    """Every token of the chosen text once, with half a context of history where there is that much."""
    length, size, starts = chosen(folder, limit)
    counted = torch.ones(length, dtype=torch.bool)
    counted[starts] = False
    windows, done = [], 1
    for nominal in range(0, length, max(context // 2, 1)):
        if done >= length:
            break
        start = min(nominal, max(length - context - 1, 0))
        end = min(start + context + 1, length)
        windows.append((start, end, done))
        done = end
    nats = torch.zeros((), dtype=torch.float64)
    for start, end, first in windows[rank::world]:
        logits = model(text[None, start : end - 1].to(device))[0].float()
        losses = F.cross_entropy(logits, text[start + 1 : end].to(device), reduction="none").cpu().double()
        places = torch.arange(start + 1, end)
        nats += losses[(places >= first) & counted[start + 1 : end]].sum()
    nats = nats.to(device)
    dist.all_reduce(nats)
    return nats.item(), int(counted.sum()), size


def rate(train, step):
    """The learning rate of a step, as isoloss has it."""
    peak, warmup, steps = train["learning_rate"], train["warmup_steps"], train["steps"]
    if step < warmup:
        return peak * (step + 1) / warmup
    if "cosine" in train["schedule"]:
        done = min((step - warmup) / max(steps - warmup, 1), 1.0)
        final = train["schedule"]["cosine"]["final_ratio"]
        return peak * (final + (1 - final) * 0.5 * (1 + math.cos(math.pi * done)))
    decay, left = train["schedule"]["wsd"]["decay_steps"], steps - step
    return peak if left > decay else peak * (1 - math.sqrt(1 - left / (decay + 1)))


def batch_of(text, train, context, step, rank, world):
    """This rank's sequences of a step: the same for any number of ranks."""
    pick = torch.Generator().manual_seed(train["seed"] * 1_000_003 + step)
    starts = torch.randint(len(text) - context - 1, (train["batch"],), generator=pick)[rank::world]
    rows = [text[start : start + context + 1] for start in starts]
    return torch.stack(rows) if rows else text[:0].view(0, 0)


def told_to_stop(device):
    """Rank 0 knows; all agree on the step."""
    flag = torch.tensor([1.0 if stop.is_set() else 0.0], device=device)
    dist.all_reduce(flag, op=dist.ReduceOp.MAX)
    return flag.item() > 0


def advance(model, optimizer, text, run, step, rank, world, device):
    """One optimizer step over all ranks; its mean loss."""
    train, context = run["train"], run["model"]["context"]
    for group in optimizer.param_groups:
        group["lr"] = rate(train, step)
    rows = batch_of(text, train, context, step, rank, world).to(device)
    optimizer.zero_grad(set_to_none=False)
    loss = torch.zeros((), device=device)
    if len(rows):
        logits = model(rows[:, :-1])
        loss = F.cross_entropy(logits.flatten(0, 1).float(), rows[:, 1:].flatten(), reduction="sum")
        loss = loss / (train["batch"] * context)
        loss.backward()
    total = loss.detach().clone()
    dist.all_reduce(total)
    for weight in model.parameters():
        if weight.grad is None:
            weight.grad = torch.zeros_like(weight)
        dist.all_reduce(weight.grad)
    torch.nn.utils.clip_grad_norm_(model.parameters(), train["clip"])
    optimizer.step()
    return total.item()


def save(voice, folder, step, model, optimizer):
    if voice.rank == 0:
        path = os.path.join(folder, "%010d.pt" % step)
        with open(path + ".partial", "wb") as file:
            torch.save({"step": step, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
            file.flush()
            os.fsync(file.fileno())
        os.rename(path + ".partial", path)
        voice.say("checkpoint", path=path, step=step)


def train(order, rank, world, device):
    voice, run = Voice(order, rank), order["run"]
    shape, recipe, data = run["model"], run["train"], run["data"]
    context, steps = shape["context"], recipe["steps"]
    if shape.get("experts"):
        if rank == 0:
            print("this trainer knows no experts", file=sys.stderr)
        return 78
    torch.manual_seed(recipe["seed"])
    model = Model(shape).to(device)
    matrices = [weight for weight in model.parameters() if weight.dim() == 2]
    gains = [weight for weight in model.parameters() if weight.dim() < 2]
    groups = [{"params": matrices, "weight_decay": recipe["weight_decay"]}, {"params": gains, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(recipe["beta1"], recipe["beta2"]), eps=recipe["epsilon"])
    text = stream(order["corpus"], "train", shape["vocab"])[: data.get("tokens_unique")]
    validation = stream(order["corpus"], "validation", shape["vocab"])
    step = 0
    if order.get("resume"):
        saved = torch.load(order["resume"], map_location=device, weights_only=True)
        model.load_state_dict(saved["model"])
        optimizer.load_state_dict(saved["optimizer"])
        step = saved["step"]
    if rank == 0:
        print("%d ranks, %s, from step %d of %d" % (world, device, step, steps), file=sys.stderr)
    begun = said = time.monotonic()
    here, curve, loss, a_step = step, [], 0.0, recipe["batch"] * context
    while step < steps:
        loss = advance(model, optimizer, text, run, step, rank, world, device)
        step += 1
        if not math.isfinite(loss):
            voice.say("outcome", result={"outcome": "diverged", "step": step, "reason": "training loss %s" % loss})
            return 0
        now = time.monotonic()
        if now - said > 0.5 or step == steps:
            said, speed = now, (step - here) * a_step / (now - begun)
            memory = int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
            numbers = {"tokens": step * a_step, "loss_nats": loss, "tokens_per_second": speed, "memory_bytes": memory}
            voice.say("progress", step=step, steps=steps, **numbers)
        if step in (steps // 4, steps // 2, steps):
            nats, tokens, size = score(model, validation, order["corpus"], data["curve_bytes"], context, rank, world, device)
            point = {"step": step, "tokens": step * a_step, "loss_nats": nats / tokens, "bits_per_byte": nats / size / math.log(2)}
            voice.say("eval", **point)
            curve.append({**point, "train_loss_nats": loss})
        if step < steps and told_to_stop(device):
            save(voice, order["checkpoints"], step, model, optimizer)
            return 85
    save(voice, order["checkpoints"], step, model, optimizer)
    nats, tokens, size = score(model, validation, order["corpus"], data["scored_bytes"], context, rank, world, device)
    score_of = {"loss_nats": nats / tokens, "tokens": tokens, "bytes": size}
    result = {"outcome": "finished", "score": score_of, "train_loss_nats": loss, "curve": curve}
    # Said so that it is checked: these must be the plan's counts.
    voice.say("outcome", result={**result, "params": model.counts(shape), "steps": steps})
    return 0


def listen():
    for line in sys.stdin:
        if line.strip() and json.loads(line)["event"] == "stop":
            stop.set()
    # The end of input means stop at once. The others end with this process: torchrun sees to that.
    os._exit(75)


def main():
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    cuda = torch.cuda.is_available()
    dist.init_process_group("nccl" if cuda else "gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0"))) if cuda else torch.device("cpu")
    if cuda:
        torch.cuda.set_device(device)
    orders = [json.loads(sys.stdin.readline()) if rank == 0 else None]
    dist.broadcast_object_list(orders, src=0, device=device)
    if rank == 0:
        threading.Thread(target=listen, daemon=True).start()
    if not cuda:
        torch.set_num_threads(max(1, orders[0]["threads"] // world))
    code = train(orders[0], rank, world, device)
    dist.barrier()
    sys.stdout.flush()
    # Not `sys.exit`: the listening thread may still wait for a line.
    os._exit(code)


if __name__ == "__main__":
    main()
