#!/usr/bin/env python3
"""What one `gangway run` costs, in milliseconds of CPU by role.

On a machine with fewer cores than lab hosts a launch takes as long as the sum
of what its processes compute, and that sum can be measured on a busy machine,
where wall times say nothing. Runs `hostname` over standing agents (TLS) some
times and divides: the command's own time; the agents'; that of the shims and
all below them, which the agents have waited for. Where there is a cpuacct hierarchy, also all
that was computed between the command's start and its end: what agents do after
it is in the sums by role only.
"""
import argparse
import json
import os
import resource
import signal
import statistics
import subprocess
import sys
import time
from pathlib import Path

import run

GROUP = Path("/sys/fs/cgroup/cpuacct/gangway-cpu")
TICK = os.sysconf("SC_CLK_TCK")


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hosts", type=int, default=8)
    p.add_argument("--runs", type=int, default=30, help="measured runs, after three that warm up")
    p.add_argument("--ppn", type=int, default=1, help="ranks per host")
    p.add_argument("--pause", type=float, default=0.2, help="seconds between runs, for what the agents do afterwards")
    p.add_argument("--gangway", default=str(run.ROOT / "bin/gangway"))
    p.add_argument("--flags", default="", help="further flags of gangway run")
    p.add_argument("--inside", default="", help=argparse.SUPPRESS)
    return p.parse_args()


def agents(key):
    """pids of the agents that were started with key."""
    found = []
    for d in Path("/proc").glob("[0-9]*"):
        try:
            argv = (d / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if len(argv) > 1 and argv[1] == b"agent" and key.encode() in argv:
            found.append(int(d.name))
    return found


def times(pid):
    """CPU seconds of pid and of the children that it has waited for."""
    f = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    u, s, cu, cs = (int(x) / TICK for x in f[11:15])
    return u + s, cu + cs


def used():
    """CPU seconds of everything in this measurement, None where it is unknown."""
    try:
        return int((GROUP / "cpuacct.usage").read_text()) / 1e9
    except OSError:
        return None


def inside(a):
    run.wait_agents(a)
    cores = os.cpu_count() or 1
    over = ["-c", str(cores // a.ppn)] if a.ppn <= cores else ["--oversubscribe"]
    argv = [a.gangway, "run", "--agents", f"n[1-{a.hosts}]:{run.PORT}", "--key", os.environ["GANGWAY_BENCH_KEY"],
            "-N", str(a.hosts), "--ppn", str(a.ppn), *over, "--mpi", "none", *a.flags.split(), "--", "hostname"]

    def once():
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        all_before = used()
        start = time.perf_counter()
        r = subprocess.run(argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60)
        wall = time.perf_counter() - start
        during = (used() or 0) - (all_before or 0)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        if r.returncode != 0 or len(r.stdout.split()) != a.hosts * a.ppn:
            sys.exit(f"cpu: exit status {r.returncode}, {r.stdout!r}\n{r.stderr}")
        time.sleep(a.pause)
        return after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime, wall, during

    for _ in range(3):
        once()
    print("ready", flush=True)
    sys.stdin.readline()
    print(json.dumps([once() for _ in range(a.runs)]), flush=True)
    sys.stdin.readline()


def outside(a):
    env = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", run.LABCTL, "./internal/lab/labctl"], cwd=run.ROOT, check=True, env=env)
    try:
        GROUP.mkdir(exist_ok=True)
        (GROUP / "cgroup.procs").write_text(str(os.getpid()))
    except OSError as e:
        print(f"cpu: no cpuacct: {e}", file=sys.stderr)
    lab = run.Lab(a.hosts)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        key = run.agents_up(lab, a.gangway)
        p = subprocess.Popen(lab.argv("n0", sys.executable, Path(__file__).resolve(), *sys.argv[1:], "--inside", lab.dir),
                             env={**os.environ, "GANGWAY_BENCH_KEY": key}, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        if p.stdout.readline() != "ready\n":
            return p.wait() or 1
        pids = agents(key)
        if len(pids) != a.hosts:
            sys.exit(f"cpu: {len(pids)} agents, want {a.hosts}")
        before = [times(i) for i in pids]
        p.stdin.write("\n")
        p.stdin.flush()
        line = p.stdout.readline()
        if not line:
            return p.wait() or 1
        after = [times(i) for i in pids]
        p.communicate("\n")
        runs = json.loads(line)
        ms = lambda i: sum(x[i] - y[i] for x, y in zip(after, before)) / a.runs * 1000
        cli = statistics.mean(c for c, _, _ in runs) * 1000
        walls = sorted(w * 1000 for _, w, _ in runs)
        during = statistics.mean(d for _, _, d in runs) * 1000
        print(f"{a.runs} runs, {a.hosts} hosts x {a.ppn}: command {cli:.1f}, agents {ms(0):.1f}, shims and ranks {ms(1):.1f}, "
              f"together {cli + ms(0) + ms(1):.1f} ms of CPU a run, {during:.1f} before the command's end; wall ms: least {walls[0]:.0f}, median {walls[len(walls) // 2]:.0f}")
        return p.returncode
    finally:
        lab.down()
        if GROUP.exists():
            (GROUP.parent / "cgroup.procs").write_text(str(os.getpid()))
            GROUP.rmdir()


if __name__ == "__main__":
    args = arguments()
    sys.exit(inside(args) if args.inside else outside(args))
