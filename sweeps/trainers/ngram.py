#!/usr/bin/env python3
"""A trainer that is no neural network, for isoloss, with Python's standard library alone.

It counts which byte follows which context of up to ORDER bytes and mixes the orders by Witten and Bell's rule (1991),
so that its probabilities sum to one. A run's params (without embedding) are the counters that it may keep: the first
that it meets stay, later ones find the table full. So it has a true size N and a true budget D, and its losses follow
a law of their own. The FLOPs of the plan are those of a transformer of that size and say nothing about this program.

It speaks the child protocol: one JSON object a line on stdin and stdout, see README.md beside this file. It takes one run
after another: nothing of a run is left when its outcome is said.
"""

import json
import math
import os
import queue
import resource
import signal
import struct
import sys
import threading
import time

ORDER = 4
stop = threading.Event()


def say(order, event, **fields):
    line = {"event": event, "run_id": order["run_id"], "attempt": order["attempt"], **fields}
    sys.stdout.write(json.dumps(line, allow_nan=False) + "\n")
    sys.stdout.flush()


def listen(runs):
    """Orders: a run, stop, or the end of input, which means stop at once."""
    for line in sys.stdin:
        order = json.loads(line) if line.strip() else {"event": None}
        if order["event"] == "stop":
            stop.set()
        elif order["event"] == "run":
            runs.put(order)
    os._exit(75)


def memory():
    """Bytes in use now: the peak of a process that had other runs before is not that of this run."""
    try:
        with open("/proc/self/statm") as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


class Counts:
    """For each order a table from context to [sum, {byte: count}]; no more counters than `most` in all."""

    def __init__(self, most):
        self.most, self.used = most, 0
        self.tables = [{} for _ in range(ORDER + 1)]

    def learn(self, history, byte):
        for order, table in enumerate(self.tables):
            context = history[len(history) - order :]
            node = table.get(context)
            if node is not None and byte in node[1]:
                node[1][byte] += 1
                node[0] += 1
            elif self.used < self.most:
                self.used += 1
                if node is None:
                    node = table[context] = [0, {}]
                node[1][byte] = 1
                node[0] += 1

    def probability(self, history, byte, vocab):
        p = 1.0 / vocab
        for order, table in enumerate(self.tables):
            node = table.get(history[len(history) - order :])
            if node is not None:
                kinds = len(node[1])
                p = (node[1].get(byte, 0) + kinds * p) / (node[0] + kinds)
        return p


def documents(folder, part):
    """(tokens, bytes) of each document: records of two 64-bit counts and the surprisal in bits."""
    with open(os.path.join(folder, part + ".documents"), "rb") as file:
        return [record[:2] for record in struct.iter_unpack("<QQd", file.read())]


def score(model, text, spans, limit, vocab):
    """The first documents that fit into `limit` bytes, one at least: nats, tokens, bytes. The byte before a document is
    an input and never scored."""
    nats, scored, at = 0.0, 0, 0
    for tokens, size in spans:
        if scored and scored + size > limit:
            break
        for place in range(at + 1, at + tokens):
            nats -= math.log(model.probability(text[max(at, place - ORDER) : place], text[place], vocab))
        scored += size
        at += tokens
    return nats, scored


def save(order, step, model):
    """Under a temporary name, synced, renamed: a checkpoint is whole or not there. The worker takes its digest."""
    path = os.path.join(order["checkpoints"], "%010d.json" % step)
    tables = [[[list(c), s, list(n.items())] for c, (s, n) in table.items()] for table in model.tables]
    with open(path + ".partial", "w") as file:
        json.dump({"step": step, "used": model.used, "tables": tables}, file)
        file.flush()
        os.fsync(file.fileno())
    os.rename(path + ".partial", path)
    say(order, "checkpoint", path=path, step=step)


def restore(path, model):
    with open(path) as file:
        saved = json.load(file)
    model.used = saved["used"]
    model.tables = [{bytes(c): [s, dict(map(tuple, n))] for c, s, n in table} for table in saved["tables"]]
    return saved["step"]


def params(model):
    """Weights without embedding, as isoloss counts them (dense): attention, three matrices of the feed-forward part, gains."""
    width, layers = model["width"], model["layers"]
    return layers * (4 * width * width + 3 * width * model["ff"] + 2 * width) + width


def train(order):
    """The result, or the exit code of a run that has none."""
    begun = time.monotonic()
    run, folder = order["run"], order["corpus"]
    model, steps, seed = run["model"], run["train"]["steps"], run["train"]["seed"]
    if model["vocab"] != 256 or model.get("experts"):
        print("this trainer counts bytes and knows no experts", file=sys.stderr)
        return 78
    with open(os.path.join(folder, "train.tokens"), "rb") as file:
        text = file.read()
    with open(os.path.join(folder, "validation.tokens"), "rb") as file:
        validation = file.read()
    spans = documents(folder, "validation")
    text = text[: run["data"].get("tokens_unique") or len(text)]
    counts = Counts(params(model))
    step = restore(order["resume"], counts) if order.get("resume") else 0
    print("counts %d counters, from step %d of %d" % (counts.most, step, steps), file=sys.stderr)
    a_step = run["train"]["batch"] * model["context"]
    # Another seed begins elsewhere on the text, closed to a ring.
    origin = (seed * 0x9E3779B97F4A7C15 + ORDER) % len(text)
    curve, said, loss, here = [], begun, 0.0, step
    while step < steps:
        at = (origin + step * a_step) % len(text)
        piece = text[at : at + a_step]
        piece += text[: a_step - len(piece)]
        if step % 8 == 0 or step + 1 == steps:
            sample = range(ORDER, len(piece), 16)
            loss = -sum(math.log(counts.probability(piece[i - ORDER : i], piece[i], 256)) for i in sample) / len(sample)
        for i in range(ORDER, len(piece)):
            counts.learn(piece[i - ORDER : i], piece[i])
        step += 1
        now = time.monotonic()
        tokens = step * a_step
        if now - said > 0.5 or step == steps:
            said = now
            rate = (step - here) * a_step / max(now - begun, 1e-9)
            numbers = {"loss_nats": loss, "tokens_per_second": rate, "memory_bytes": memory()}
            say(order, "progress", step=step, steps=steps, tokens=tokens, **numbers)
        if step in (steps // 8, steps // 4, steps // 2, steps):
            nats, size = score(counts, validation, spans, run["data"]["curve_bytes"], 256)
            point = {"step": step, "tokens": tokens, "loss_nats": nats / size, "bits_per_byte": nats / size / math.log(2)}
            say(order, "eval", **point)
            curve.append({**point, "train_loss_nats": loss})
        if stop.is_set() and step < steps:
            save(order, step, counts)
            return 85
    nats, size = score(counts, validation, spans, run["data"]["scored_bytes"], 256)
    # What is not said here is filled in by the worker: params, FLOPs, tokens, seconds, bits per byte.
    return {
        "outcome": "finished",
        "score": {"loss_nats": nats / size, "tokens": size, "bytes": size},
        "train_loss_nats": loss,
        "curve": curve,
    }


def main():
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    runs = queue.Queue()
    threading.Thread(target=listen, args=(runs,), daemon=True).start()
    while not stop.is_set():
        order = runs.get()
        say(order, "taken")
        result = train(order)
        if isinstance(result, int):
            # Not `sys.exit`: the listening thread may still wait for a line.
            os._exit(result)
        # All that the run took was local to `train` and is gone: another may come.
        say(order, "outcome", result=result, again=not stop.is_set())
    os._exit(0)


if __name__ == "__main__":
    main()
