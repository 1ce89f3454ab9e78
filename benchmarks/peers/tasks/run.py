#!/usr/bin/env python3
"""Small independent tasks: gangway beside posix_spawn, xargs, GNU Parallel,
HyperQueue and Slurm's job arrays.

Every round runs every case once, each round starting with another, on this
machine's cores; gangway once more over hosts of a lab (root), where the same
cores are many hosts'. What is counted is wall time from the command's start to
its end; of HyperQueue, whose server and worker stand, from submission to the last
end. Slow peers run fewer tasks, so that a round ends; rates are compared.

gangway keeps each task's output and commits each result to disk; what the peers
keep stands in the table.
"""
import argparse
import importlib.util
import json
import os
import platform
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
WORK = ROOT / ".cache/tasks-bench"
HQ = ROOT / ".cache/venv-hyperqueue/bin/python"
PORT = 7700

# What is kept of each task, by case.
KEPT = {
    "posix_spawn": "nothing",
    "xargs -P": "nothing",
    "GNU Parallel": "output, grouped",
    "HyperQueue": "states in memory",
    "Slurm array": "states, in files now and then",
    "gangway map": "output, grouped; results in memory of the launcher and on the node's disk",
    "gangway submit": "output; results committed to disk",
    "gangway submit, lab hosts": "output; results committed to disk",
}
# Tasks of a case where N would take too long: at most this share of N.
SHARE = {"GNU Parallel": 10, "HyperQueue": 5, "Slurm array": 200}

# What is to be reached, in medians of one run.
TO_SPAWN, TO_HQ = 0.9, 2.0
OVER_IDEAL = {100: 1.03, 10: 1.10}  # by the task's milliseconds


def launch_bench():
    """The lab and the Slurm of the launch comparison."""
    spec = importlib.util.spec_from_file_location("launch", HERE.parent / "launch/run.py")
    m = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(m)
    return m


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--n", type=int, default=10000, help="tasks of a run")
    p.add_argument("--rounds", type=int, default=5, help="measured rounds, after one that warms up")
    p.add_argument("--lengths", default="1,10,100", help="milliseconds of the tasks in the second table; empty: none")
    p.add_argument("--seconds", type=float, default=10, help="ideal seconds of a run in the second table")
    p.add_argument("--hosts", type=int, default=4, help="of the lab; 0: no lab, and no Slurm")
    p.add_argument("--only", default="", help="cases whose names begin so, comma separated")
    p.add_argument("--timeout", type=float, default=300)
    p.add_argument("--write", action="store_true", help="write results.json and RESULTS.md")
    p.add_argument("--gangway", default=str(ROOT / "bin/gangway"))
    return p.parse_args()


class Failed(Exception):
    pass


def timed(argv, timeout, env=None, stdin=None):
    """Wall seconds of a command that must succeed and print nothing to speak of."""
    start = time.perf_counter()
    p = subprocess.Popen(argv, env=env, stdin=stdin or subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, start_new_session=True)
    try:
        _, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        raise Failed(f"hung for {timeout:g} s") from None
    wall = time.perf_counter() - start
    if p.returncode != 0:
        raise Failed(f"exit status {p.returncode}: {err.decode(errors='replace').strip()[-300:]}")
    return wall


class Bench:
    def __init__(self, a):
        self.a = a
        self.cores = os.cpu_count() or 1
        self.dir = Path(tempfile.mkdtemp(prefix="gwtasks.", dir="/tmp"))
        self.children, self.lab, self.hq, self.env = [], None, None, dict(os.environ)
        self.cases = {}
        self.missing = {}

    # ---- what stands while the rounds run ----

    def up(self):
        WORK.mkdir(parents=True, exist_ok=True)
        for name, src in (("spawn", HERE.parent / "launch/spawn.c"), ("nap", HERE / "nap.c")):
            subprocess.run(["cc", "-O1", "-o", WORK / name, src], check=True)
        # The numbers that the tasks of a run are given, one a line.
        self.add("posix_spawn", lambda n, cmd: timed([WORK / "spawn", str(n), str(self.cores), *cmd], self.a.timeout))
        self.add("xargs -P", lambda n, cmd: self.piped(n, ["xargs", f"-P{self.cores}", "-n1", *cmd]))
        if shutil.which("parallel"):
            self.add("GNU Parallel", lambda n, cmd: self.piped(n, ["parallel", f"-j{self.cores}", "--will-cite", *cmd]))
        else:
            self.missing["GNU Parallel"] = "parallel is not installed"
        if HQ.exists():
            self.add("HyperQueue", self.hyperqueue)
        else:
            self.missing["HyperQueue"] = f"{HQ} is not there: .ci/deps.sh --all"
        gw = self.a.gangway
        self.add("gangway map", lambda n, cmd: self.piped(n, [gw, "map", f"-j{self.cores}", *cmd]))
        if self.wanted("gangway submit"):
            sock = self.launcher("here", [])
            self.add("gangway submit", lambda n, cmd: timed(self.submit(sock, n, cmd), self.a.timeout))
        if self.a.hosts and os.geteuid() == 0 and (self.wanted("gangway submit, lab hosts") or self.wanted("Slurm array")):
            self.lab_up()

    def wanted(self, name):
        return not self.a.only or any(name.startswith(o) for o in self.a.only.split(","))

    def add(self, name, run):
        if self.wanted(name):
            self.cases[name] = run

    def start(self, log, argv, **kw):
        f = open(log, "w")
        p = subprocess.Popen([str(w) for w in argv], stdin=kw.pop("stdin", subprocess.DEVNULL), stdout=kw.pop("stdout", f), stderr=f, start_new_session=True, **kw)
        self.children.append(p)
        return p

    def launcher(self, name, flags, prefix=()):
        """Starts `gangway up` and returns its socket once it takes jobs."""
        data = self.dir / f"data-{name}"
        sock = data / "launcher.sock"
        self.start(self.dir / f"up-{name}.log", [*prefix, self.a.gangway, "up", "--data", data, *flags])
        deadline = time.monotonic() + 30
        while True:
            r = subprocess.run([self.a.gangway, "submit", "--launcher", f"unix:{sock}", "--wait", "--mpi", "none", "--", "/bin/true"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
            if r.returncode == 0:
                return sock
            if time.monotonic() > deadline:
                sys.exit(f"tasks: the launcher takes no jobs: {r.stderr}\n" + (self.dir / f"up-{name}.log").read_text()[-2000:])
            time.sleep(0.2)

    def lab_up(self):
        m = launch_bench()
        env = {**os.environ, "CGO_ENABLED": "0"}
        subprocess.run(["go", "build", "-o", m.LABCTL, "./internal/lab/labctl"], cwd=ROOT, check=True, env=env)
        self.lab = m.Lab(self.a.hosts)
        prefix = self.lab.argv("n0")
        if self.wanted("Slurm array"):
            if shutil.which("slurmctld"):
                self.env["SLURM_CONF"] = m.slurm_up(self.lab)
                conf = Path(self.env["SLURM_CONF"])
                conf.write_text(conf.read_text() + "MaxArraySize=100001\nMaxJobCount=200000\n")
                self.lab.run("n0", "scontrol", "reconfigure", env=self.env)
                self.add("Slurm array", lambda n, cmd: timed([*prefix, "sbatch", "--wait", f"--array=1-{n}", "-n1", "-o", "/dev/null", "-e", "/dev/null",
                                                             "--wrap", " ".join(map(str, cmd))], self.a.timeout, env=self.env))
            else:
                self.missing["Slurm array"] = "slurm-wlm is not installed"
        if self.wanted("gangway submit, lab hosts"):
            key = m.agents_up(self.lab, self.a.gangway)
            sock = self.launcher("lab", ["--agents", f"n[1-{self.a.hosts}]:{PORT}", "--key", key], prefix)
            self.add("gangway submit, lab hosts", lambda n, cmd: timed(self.submit(sock, n, cmd), self.a.timeout))

    def down(self):
        for p in reversed(self.children):
            if p.poll() is None:
                p.terminate()
        for p in self.children:
            try:
                p.wait(timeout=20)
            except subprocess.TimeoutExpired:
                p.kill()
                p.wait()
        if self.lab:
            self.lab.down()
        shutil.rmtree(self.dir, ignore_errors=True)

    # ---- the cases ----

    def piped(self, n, argv):
        lines = self.dir / f"lines-{n}"
        if not lines.exists():
            lines.write_text("".join(f"{i}\n" for i in range(1, n + 1)))
        with open(lines) as f:
            return timed(list(map(str, argv)), self.a.timeout, stdin=f)

    def submit(self, sock, n, cmd):
        return [self.a.gangway, "submit", "--launcher", f"unix:{sock}", "--array", str(n), "--wait", "--mpi", "none", "--", *map(str, cmd)]

    def hyperqueue(self, n, cmd):
        if self.hq is None:
            self.hq = self.start(self.dir / "hq.log", [HQ, HERE / "hq.py", str(self.cores)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
            if self.hq.stdout.readline().strip() != "ready":
                raise Failed("it did not start: " + (self.dir / "hq.log").read_text()[-300:])
        self.hq.stdin.write(f"{n} {' '.join(map(str, cmd))}\n")
        self.hq.stdin.flush()
        answer = self.hq.stdout.readline()
        if not answer:
            raise Failed("it ended: " + (self.dir / "hq.log").read_text()[-300:])
        return float(answer)

    # ---- rounds ----

    def table(self, n, cmd, rounds, share):
        """name → (tasks, walls, errors)"""
        out = {name: (max(n // (share.get(name, 1)), 20), [], []) for name in self.cases}
        todo = list(self.cases.items())
        for rnd in range(rounds + 1):
            k = rnd % len(todo)
            for name, run in todo[k:] + todo[:k]:
                count, walls, errors = out[name]
                time.sleep(0.3)
                try:
                    wall = run(count, cmd)
                except Failed as e:
                    errors.append(str(e))
                    print(f"round {rnd}, {name}: {e}", file=sys.stderr)
                    continue
                if rnd > 0:
                    walls.append(wall)
            print(f"{' '.join(map(str, cmd))}: round {rnd} of {rounds}", file=sys.stderr)
        return out


def line(name, count, walls, errors, at):
    if not walls:
        return [name, count, "–", "–", "–", "–", len(errors), errors[-1] if errors else ""]
    med = statistics.median(walls)
    ratio = lambda other: f"{count / med / at[other]:.2f}" if at.get(other) else "–"
    return [name, count, f"{med:.2f}", f"{min(walls):.2f} to {max(walls):.2f}", f"{count / med:.0f}", ratio("posix_spawn"), len(errors), KEPT[name]]


def rates(t):
    return {n: c / statistics.median(w) for n, (c, w, _) in t.items() if w}


def main():
    a = arguments()
    b = Bench(a)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    tables = {}
    try:
        b.up()
        tables["true"] = b.table(a.n, ["/bin/true"], a.rounds, SHARE)
        for ms in filter(None, a.lengths.split(",")):
            n = int(a.seconds * 1000 * b.cores / int(ms))
            # Where a task lasts long enough, the slow peers keep up; where not, they run fewer.
            share = {k: max(1, v // max(1, int(ms))) for k, v in SHARE.items()}
            tables[ms] = b.table(n, [WORK / "nap", str(int(ms) * 1000)], max(1, a.rounds // 2), share)
    finally:
        b.down()
    all_tables = dict(tables)
    md = []
    t = tables.pop("true")
    at = rates(t)
    md += [f"## {a.n} × true", "", "| case | tasks | median s | min to max | tasks/s | to posix_spawn | failed | keeps |", "|---|---|---|---|---|---|---|---|"]
    md += ["| " + " | ".join(map(str, line(name, *row, at))) + " |" for name, row in t.items()]
    md += [f"| {name} | – | – | – | – | – | – | {why} |" for name, why in b.missing.items()]
    targets = []
    for g in ("gangway map", "gangway submit"):
        if g not in at:
            continue
        for peer, least in (("posix_spawn", TO_SPAWN), ("xargs -P", 1.0), ("HyperQueue", TO_HQ)):
            if peer in at:
                targets.append((f"{g} ≥ {least} × {peer}", at[g] / at[peer], at[g] / at[peer] >= least))
    for ms, t in tables.items():
        md += ["", f"## Tasks that sleep {ms} ms, {b.cores} at once", "", "| case | tasks | median s | ideal s | to ideal | failed |", "|---|---|---|---|---|---|"]
        for name, (count, walls, errors) in t.items():
            # The lab's hosts have all cores each, and a sleep needs none.
            ideal = count * int(ms) / 1000 / (b.cores * (a.hosts if name.endswith("lab hosts") or name.startswith("Slurm") else 1))
            med = statistics.median(walls) if walls else None
            md.append(f"| {name} | {count} | {f'{med:.2f}' if med else '–'} | {ideal:.2f} | {f'{med / ideal:.2f}' if med else '–'} | {len(errors)} |")
            if med and int(ms) in OVER_IDEAL and name in ("gangway map", "gangway submit"):
                targets.append((f"{name}, {ms} ms: ≤ {OVER_IDEAL[int(ms)]} × ideal", med / ideal, med / ideal <= OVER_IDEAL[int(ms)]))
    md += ["", "## Targets", "", "| target | measured | |", "|---|---|---|"]
    md += [f"| {what} | {value:.2f} × | {'met' if ok else '**missed**'} |" for what, value, ok in targets]
    text = "\n".join(md)
    print(text)
    if a.write:
        version = subprocess.run([a.gangway, "version"], text=True, stdout=subprocess.PIPE).stdout.strip()
        (HERE / "RESULTS.md").write_text(
            "# Small tasks\n\n"
            f"Wall seconds of whole commands on one machine of {b.cores} cores, {a.rounds} rounds interleaved after one to warm up; "
            f"{time.strftime('%Y-%m-%d')}, Linux {platform.release()}, {version}. As many tasks at once as cores; the lab's {a.hosts} hosts have all cores each. "
            "HyperQueue is what its Python package has: server and worker in one process, no journal; from submission to the last end. "
            "Slurm without accounting and cgroups, on the lab's hosts. The machine is shared: trust the ratios.\n\n"
            + text + "\n\nAgain: `make bench-tasks`, or `python3 benchmarks/peers/tasks/run.py --write`.\n")
        (HERE / "results.json").write_text(json.dumps({k: {n: {"tasks": c, "walls": w, "errors": e} for n, (c, w, e) in t.items()} for k, t in all_tables.items()}, indent=1) + "\n")
    return 0 if all(ok for _, _, ok in targets) else 1


if __name__ == "__main__":
    sys.exit(main())
