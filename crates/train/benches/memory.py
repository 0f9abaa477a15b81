#!/usr/bin/env python3
"""Peak memory of whole runs, checkpoints included, against 2.5 times the flat state and 30 MB.

    python3 crates/train/benches/memory.py --text novels.txt [--isoloss target/release/isoloss] [--tokenizer tokenizer.json]

One run a shape on one core, context 256. The flat state is params, their gradient and two moments, 16 bytes a param. With
a tokenizer file (one of 64k tokens, say) a model of its vocabulary is measured too.
"""

import argparse
import csv
import json
import pathlib
import subprocess
import tempfile

SHAPES = {
    "dense 42k": "layers = 2\nwidth = 32\nheads = 2\nff = 88",
    "dense 3.3M": "layers = 4\nwidth = 256\nheads = 4\nff = 688",
    "experts 3.0M": 'family = "moe"\nlayers = 5\nwidth = 128\nheads = 4\nexperts = 8\ntop_k = 2\nexpert_ff = 176',
    "vocabulary": "layers = 2\nwidth = 64\nheads = 2\nff = 176",
}

SWEEP = """schema = 1
name = "memory"
[corpus]
source = "files"
paths = [{text}]
tokenizer = {tokenizer}
validation = 0.05
[model]
context = 256
{shape}
[train]
tokens = "50k"
batch = 4
precision = "{precision}"
"""


def peak(options, shape, precision, tokenizer):
    text = json.dumps(str(pathlib.Path(options.text).resolve()))
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder, "memory.toml")
        path.write_text(SWEEP.format(text=text, shape=SHAPES[shape], precision=precision, tokenizer=tokenizer))
        command = [options.isoloss, "up", str(path), "--cores", "1", "--data-dir", f"{folder}/data"]
        command += ["--out", f"{folder}/report", "--port", "0", "--no-probe"]
        subprocess.run(command, capture_output=True, text=True, check=True)
        with open(f"{folder}/report/runs.csv") as table:
            row = next(csv.DictReader(table))
            return float(row["params_total"]), float(row["peak_memory_bytes"])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--text", required=True)
    parser.add_argument("--isoloss", default="target/release/isoloss")
    parser.add_argument("--tokenizer")
    options = parser.parse_args()
    print("shape         precision |   params   peak MB  limit MB")
    for shape in SHAPES:
        file = shape == "vocabulary"
        if file and not options.tokenizer:
            continue
        tokenizer = "{ file = " + json.dumps(str(pathlib.Path(options.tokenizer).resolve())) + " }" if file else '"bytes"'
        for precision in ["f32", "bf16"]:
            params, bytes_ = peak(options, shape, precision, tokenizer)
            limit = 2.5 * 16 * params + 30e6
            print(f"{shape:13} {precision:9} | {params:8.3g} {bytes_ / 1e6:9.0f} {limit / 1e6:9.0f}", flush=True)


if __name__ == "__main__":
    main()
