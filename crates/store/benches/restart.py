#!/usr/bin/env python3
"""A coordinator with 100,000 settled runs, killed with SIGKILL and started again: seconds until it serves, and its memory.

    cargo build --release && cargo build --release -p isoloss-store --example scale
    python3 crates/store/benches/restart.py [--runs 100000] [--isoloss target/release/isoloss]

Serving means that /readyz answers 200. Processor seconds stand beside, for machines with other work. Linux only.
"""

import argparse
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.request


def memory_mb(pid, name):
    for line in pathlib.Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) * 1024 // 1_000_000


def processor_seconds(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def life(isoloss, data, what):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    begin = time.monotonic()
    command = [isoloss, "serve", "--listen", f"127.0.0.1:{port}", "--data-dir", str(data)]
    daemon = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    while True:
        try:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5).close()
            break
        except (urllib.error.URLError, OSError):
            assert daemon.poll() is None, "the coordinator ended"
            time.sleep(0.01)
    seconds = time.monotonic() - begin
    used = processor_seconds(daemon.pid)
    time.sleep(1)
    now, most = memory_mb(daemon.pid, "VmRSS"), memory_mb(daemon.pid, "VmHWM")
    print(f"{what}: serves after {seconds:.2f} s ({used:.2f} s of processor), {now} MB resident, {most} MB at most")
    daemon.kill()
    daemon.wait()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=int, default=100_000)
    parser.add_argument("--isoloss", default="target/release/isoloss")
    parser.add_argument("--scale", default="target/release/examples/scale")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        store = pathlib.Path(folder) / "store"
        subprocess.run([arguments.scale, "fill", str(arguments.runs), str(store)], check=True)
        life(arguments.isoloss, folder, "with the index, first life")
        life(arguments.isoloss, folder, "with the index, after a kill")
        shutil.rmtree(store / "index")
        life(arguments.isoloss, folder, "from the journal alone")
        life(arguments.isoloss, folder, "with the new index, after a kill")


if __name__ == "__main__":
    main()
