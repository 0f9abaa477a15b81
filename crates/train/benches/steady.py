#!/usr/bin/env python3
"""Compares what `isoloss bench` states with what a run on real text reaches, in turn on one core, and prints paired ratios.

    python3 crates/train/benches/steady.py --text novels.txt [--rounds 3] [--shape 1M ...] [--precision f32 ...]

The run's figure is its training tokens over its training seconds, all steps (data, clipping, the update and the
reporting of progress included, evaluations not); that of `bench` is the median step.
"""

import argparse
import csv
import json
import pathlib
import statistics
import subprocess
import tempfile

# Shape lines of a sweep, and steps that take some ten seconds.
SHAPES = {
    "0.2M": ("layers = 4\nwidth = 64\nheads = 2\nff = 176", 16, 300),
    "1M": ("layers = 5\nwidth = 128\nheads = 4\nff = 352", 16, 80),
    "5M": ("layers = 6\nwidth = 256\nheads = 4\nff = 688", 16, 20),
    "20M": ("layers = 6\nwidth = 512\nheads = 8\nff = 1376", 8, 10),
    "moe-1M": ('family = "moe"\nlayers = 5\nwidth = 128\nheads = 4\nexperts = 8\ntop_k = 2\nexpert_ff = 176', 16, 60),
}

SWEEP = """schema = 1
name = "steady"
seed = {seed}
[corpus]
source = "files"
paths = [{text}]
tokenizer = "bytes"
validation = 0.05
[model]
context = 256
{shape}
[train]
tokens = {tokens}
batch = {batch}
precision = "{precision}"
"""


def bench(options, shape, precision):
    command = [options.isoloss, "bench", "--shape", shape, "--precision", precision, "--threads", "1"]
    run = subprocess.run(command + ["--seconds", "8", "--json"], capture_output=True, text=True, check=True)
    return json.loads(run.stdout)["rows"][0]["tokens_per_second"]


def train(options, shape, precision, seed):
    lines, batch, steps = SHAPES[shape]
    text = json.dumps(str(pathlib.Path(options.text).resolve()))
    sweep = SWEEP.format(seed=seed, text=text, shape=lines, tokens=steps * batch * 256, batch=batch, precision=precision)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "steady.toml")
        path.write_text(sweep)
        command = [options.isoloss, "up", str(path), "--cores", "1", "--data-dir", f"{folder}/data"]
        command += ["--out", f"{folder}/report", "--port", "0", "--no-probe"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        with open(f"{folder}/report/runs.csv") as table:
            return float(next(csv.DictReader(table))["tokens_per_second"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--isoloss", default="target/release/isoloss")
    parser.add_argument("--shape", action="append", choices=SHAPES)
    parser.add_argument("--precision", action="append", choices=["f32", "bf16"])
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print("shape    precision |    bench      run | run/bench, median of pairs [each]")
    for shape in options.shape or SHAPES:
        for precision in options.precision or ["f32", "bf16"]:
            pairs = [(bench(options, shape, precision), train(options, shape, precision, seed)) for seed in range(1, options.rounds + 1)]
            ratios = [run / step for step, run in pairs]
            step, run = (statistics.median(column) for column in zip(*pairs))
            each = " ".join(f"{ratio:.3f}" for ratio in ratios)
            print(f"{shape:8} {precision:9} | {step:8.0f} {run:8.0f} | {statistics.median(ratios):.3f} [{each}]", flush=True)


if __name__ == "__main__":
    main()
