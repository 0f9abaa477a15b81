#!/usr/bin/env python3
"""Times `isoloss bench` against a PyTorch trainer of the same shapes, in turn, and prints paired ratios.

    python3 crates/train/benches/rival.py --rival torch_gpt.py --python .venv/bin/python [--rounds 3] [--shape 1M ...]

The rival is any script that takes --cfg, --B, --threads, --compile, --amp, --moe and --secs and prints `med_tok/s=`.
Each round measures every mode of the rival once and both precisions of ours once, so that drift of the machine meets
both. What counts is the rival's best mode of a round: eager or compiled, and for experts any way to route them.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys

BATCH = {"0.2M": 16, "1M": 16, "5M": 16, "20M": 8, "moe-1M": 16}


def rival(options, shape, amp):
    """Tokens per second of the rival's best mode."""
    cfg = shape.removeprefix("moe-")
    routes = ["loop", "sort", "grouped"] if shape.startswith("moe-") else [""]
    best = {}
    for route in routes:
        for compiled in (0, 1):
            command = [options.python, options.rival, "--cfg", cfg, "--B", str(BATCH[shape]), "--secs", str(options.seconds)]
            command += ["--threads", str(options.threads), "--compile", str(compiled), "--amp", str(int(amp))]
            command += ["--moe", route] if route else []
            run = subprocess.run(command, capture_output=True, text=True)
            found = re.search(r"med_tok/s=(\d+)", run.stdout)
            if found:
                best[f"{route or 'dense'}{' compiled' if compiled else ''}"] = int(found[1])
            else:
                print(f"  {shape} {route} compile={compiled} amp={int(amp)} does not run", file=sys.stderr)
    mode = max(best, key=best.get)
    return best[mode], mode


def ours(options, shape, precision):
    command = [options.isoloss, "bench", "--shape", shape, "--precision", precision, "--threads", str(options.threads)]
    command += ["--seconds", str(options.seconds), "--json"]
    run = subprocess.run(command, capture_output=True, text=True, check=True)
    return json.loads(run.stdout)["rows"][0]["tokens_per_second"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rival", required=True)
    parser.add_argument("--python", default=sys.executable)
    parser.add_argument("--isoloss", default="target/release/isoloss")
    parser.add_argument("--shape", action="append", choices=BATCH)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=6.0)
    options = parser.parse_args()
    print("shape   |   f32   bf16 tok/s |  torch f32, mode            autocast, mode      | f32/f32 bf16/f32 bf16/autocast (medians of pairs)")
    for shape in options.shape or BATCH:
        rounds = []
        for _ in range(options.rounds):
            f32, bf16 = ours(options, shape, "f32"), ours(options, shape, "bf16")
            plain, autocast = rival(options, shape, False), rival(options, shape, True)
            rounds.append((f32, bf16, plain, autocast))
        middle = lambda of: statistics.median(of(r) for r in rounds)
        last = rounds[-1]
        print(
            f"{shape:7} | {middle(lambda r: r[0]):7.0f} {middle(lambda r: r[1]):7.0f}      "
            f"| {middle(lambda r: r[2][0]):7.0f} {last[2][1]:18} {middle(lambda r: r[3][0]):7.0f} {last[3][1]:18}"
            f" | {middle(lambda r: r[0] / r[2][0]):7.2f} {middle(lambda r: r[1] / r[2][0]):8.2f}"
            f" {middle(lambda r: r[1] / r[3][0]):13.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
