#!/usr/bin/env python3
"""Launch times of `gangway run` (through mpirun, and by PMI), `mpiexec` over ssh and
`srun`, side by side.

Builds a lab of 1 + N hosts (internal/lab; root), a real Slurm in it (munged,
slurmctld on n0, slurmd on the others) and standing gangway agents, and times
whole commands from n0, interleaved: every round runs every case once, each
round starting with another. Wall seconds; every run's output is checked, and
a run that hangs or prints the wrong lines is reported, never counted.
"""
import argparse
import json
import os
import platform
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
LABCTL = ROOT / "bin/labctl"
WORK = ROOT / ".cache/launch-bench"
PORT = 7700

# The same for every launcher. The hosts share a kernel, so UCX must be told
# to cross the wire; MPICH keeps its own shared memory within a host.
MPI_ENV = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0"}
# Settings that are given to every launcher alike: none, and those that keep
# MPICH's start-up from spinning when ranks exceed cores (its shared-memory
# barrier spins without a yield). gangway may set such by itself where it starts
# the ranks: the second table is the like-for-like one.
SETTINGS = {"as they come": {}, "anti-spin": {"MPIR_CVAR_NOLOCAL": "1", "HWLOC_COMPONENTS": "no_os,stop"}}
SRUN, HYDRA, SPAWN = "srun pmi2", "Hydra, one host", "posix_spawn, one host"


def pause_ms(ppn):
    """How long hello sleeps before MPI_Finalize: MPICH 4.0.2 hangs there over
    UCX without it (examples/hello), the more ranks the longer. It is taken off
    every time."""
    return 100 * ppn


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--hosts", type=int, default=8)
    p.add_argument("--rest", type=float, default=0.5, help="seconds between commands, whoever they are of: what one leaves to do must not load the next")
    p.add_argument("--rounds", type=int, default=7, help="measured rounds, after one that warms up")
    p.add_argument("--ppn", default="1,2,4", help="ranks per host, comma separated")
    p.add_argument("--skip", default="", help="of ssh,srun,gangway,mpirun,pmi,floor, comma separated")
    p.add_argument("--settings", default="both", choices=["both", *SETTINGS], help="which table")
    p.add_argument("--timeout", type=float, default=60, help="seconds a run may take")
    p.add_argument("--write", action="store_true", help="write results.json and RESULTS.md")
    p.add_argument("--gangway", default=str(ROOT / "bin/gangway"))
    p.add_argument("--gangway-mpi", default="", help="further flags of gangway run for the MPI program")
    p.add_argument("--inside", default="", help=argparse.SUPPRESS)
    return p.parse_args()


def tail(path, lines=15):
    try:
        return "\n".join(Path(path).read_text(errors="replace").splitlines()[-lines:])
    except OSError as e:
        return str(e)


# ---- outside: build, bring the lab and its daemons up ----


class Lab:
    def __init__(self, n):
        self.dir = tempfile.mkdtemp(prefix="gwlaunch.", dir="/tmp")
        self.n = n
        self.children = []
        subprocess.run([LABCTL, "up", str(n), "--dir", self.dir], check=True, stdout=subprocess.DEVNULL)

    def argv(self, host, *cmd):
        return [str(LABCTL), "exec", "--dir", self.dir, host, "--", *map(str, cmd)]

    def run(self, host, *cmd, **kw):
        r = subprocess.run(self.argv(host, *cmd), stdin=subprocess.DEVNULL, text=True,
                           stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, **kw)
        if r.returncode != 0:
            sys.exit(f"launch: on {host}: {' '.join(map(str, cmd))}: exit status {r.returncode}\n{r.stdout}")
        return r.stdout

    def start(self, host, log, *cmd):
        with open(log, "w") as f:
            self.children.append(subprocess.Popen(self.argv(host, *cmd), stdin=subprocess.DEVNULL,
                                                  stdout=f, stderr=f, start_new_session=True))

    def down(self):
        subprocess.run([LABCTL, "down", "--dir", self.dir], check=False)
        for c in self.children:
            c.wait()
        shutil.rmtree(self.dir, ignore_errors=True)


def slurm_up(lab):
    d = Path(lab.dir) / "slurm"
    (d / "state").mkdir(parents=True)
    key = d / "munge.key"
    key.write_bytes(os.urandom(1024))
    key.chmod(0o400)
    conf = d / "slurm.conf"
    # What matters for launch time: no accounting, no cgroups, no health
    # checks, debug logging off; more CPUs than the machine has, so that four
    # ranks fit on a host, as --oversubscribe lets them elsewhere.
    conf.write_text(f"""ClusterName=lab
SlurmctldHost=n0
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket=/run/munge/munge.socket.2
StateSaveLocation={d}/state
SlurmdSpoolDir=/run/slurmd.%n
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.%n.pid
SlurmctldLogFile={d}/slurmctld.log
SlurmdLogFile={d}/slurmd.%n.log
SlurmctldDebug=info
SlurmdDebug=error
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/none
AccountingStorageType=accounting_storage/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
MpiDefault=none
ReturnToService=2
SwitchType=switch/none
SlurmdParameters=config_overrides
MailProg=/bin/true
NodeName=n[1-{lab.n}] CPUs=8 RealMemory=512 State=UNKNOWN
PartitionName=lab Nodes=ALL Default=YES MaxTime=INFINITE State=UP
""")
    (d / "cgroup.conf").write_text("")
    env = {**os.environ, "SLURM_CONF": str(conf)}
    for i in range(lab.n + 1):
        lab.run(f"n{i}", "mkdir", "-p", "/run/munge")
        lab.run(f"n{i}", "munged", "--force", f"--key-file={key}", "--socket=/run/munge/munge.socket.2",
                "--pid-file=/run/munge/munged.pid", f"--log-file={d}/munged.n{i}.log",
                f"--seed-file={d}/munged.n{i}.seed")
    lab.run("n0", "slurmctld", "-f", conf, env=env)
    for i in range(1, lab.n + 1):
        lab.run(f"n{i}", "slurmd", "-f", conf, "-N", f"n{i}", env=env)
    deadline = time.monotonic() + 60
    while True:
        out = subprocess.run(lab.argv("n0", "sinfo", "-h", "-o", "%D %t"), env=env, text=True,
                             stdout=subprocess.PIPE, stderr=subprocess.STDOUT).stdout
        if out.strip() == f"{lab.n} idle":
            return str(conf)
        if time.monotonic() > deadline:
            sys.exit(f"launch: slurm did not come up: sinfo says {out!r}\n{tail(d / 'slurmctld.log')}\n{tail(d / 'slurmd.n1.log')}")
        time.sleep(0.1)


def agents_up(lab, gangway):
    key = Path(lab.dir) / "agents.key"
    key.write_text(os.urandom(32).hex() + "\n")
    key.chmod(0o600)
    for i in range(1, lab.n + 1):
        lab.start(f"n{i}", f"{lab.dir}/agent.n{i}.log", gangway, "agent", "--listen", f"10.77.0.{i + 1}:{PORT}", "--key", key)
    return str(key)


def outside(a):
    if os.geteuid() != 0:
        sys.exit("launch: the lab needs root")
    skip = set(filter(None, a.skip.split(",")))
    env = {**os.environ, "CGO_ENABLED": "0"}
    subprocess.run(["go", "build", "-o", LABCTL, "./internal/lab/labctl"], cwd=ROOT, check=True, env=env)
    WORK.mkdir(parents=True, exist_ok=True)
    subprocess.run(["mpicc.mpich", "-O1", "-o", WORK / "hello", ROOT / "examples/hello/hello.c"], check=True)
    subprocess.run(["cc", "-O1", "-o", WORK / "spawn", HERE / "spawn.c"], check=True)
    lab = Lab(a.hosts)
    # Ctrl-C and SIGTERM end the lab too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    try:
        inner = {**os.environ, **MPI_ENV}
        if "srun" not in skip:
            inner["SLURM_CONF"] = slurm_up(lab)
        if "gangway" not in skip:
            inner["GANGWAY_BENCH_KEY"] = agents_up(lab, a.gangway)
        r = subprocess.run(lab.argv("n0", sys.executable, HERE / "run.py", *sys.argv[1:], "--inside", lab.dir), env=inner)
        return r.returncode
    finally:
        lab.down()


# ---- inside n0: measure ----


def wait_agents(a):
    for i in range(1, a.hosts + 1):
        deadline = time.monotonic() + 20
        while True:
            try:
                socket.create_connection((f"n{i}", PORT), timeout=1).close()
                break
            except OSError as e:
                if time.monotonic() > deadline:
                    sys.exit(f"launch: no agent on n{i}: {e}\n{tail(f'{a.inside}/agent.n{i}.log')}")
                time.sleep(0.02)


def ways(a, skip):
    """How gangway starts MPI ranks: name → flags."""
    return {f"gangway {way}": ["--launch", way, *a.gangway_mpi.split()] for way in ("mpirun", "pmi") if way not in skip}


def cases(a, skip, ppn, settings, launches):
    """name → (program, argv): what is timed with ppn ranks on each host."""
    n, hello = a.hosts, str(WORK / "hello")
    hosts = ",".join(f"n{i}:{ppn}" for i in range(1, n + 1))
    # The hosts are one machine: bound to its host's first core, every host's
    # rank would share that one. srun (no task plugin) and mpiexec don't bind.
    cores = os.cpu_count() or 1
    over = ["-c", str(cores // ppn)] if ppn <= cores else ["--oversubscribe"]
    names = [*MPI_ENV, *SETTINGS[settings], "HELLO_PAUSE"]
    out = {}
    for program, cmd, pmi, mpi in (("hostname", ["hostname"], "none", {"gangway": ["--mpi", "none"]}), ("mpi", [hello], "pmi2", launches)):
        if program == "hostname" and SETTINGS[settings]:
            continue  # nothing spins there
        if "ssh" not in skip:
            out[program, "ssh + Hydra"] = ["mpiexec.mpich", "-launcher", "ssh", "-hosts", hosts, "-n", str(n * ppn), *cmd]
        if "srun" not in skip:
            out[program, SRUN if program == "mpi" else "srun"] = ["srun", f"--mpi={pmi}", "-N", str(n), "-n", str(n * ppn), f"--ntasks-per-node={ppn}", *cmd]
        if "gangway" not in skip:
            for name, flags in mpi.items():
                out[program, name] = [a.gangway, "run", "--agents", f"n[1-{n}]:{PORT}", "--key", os.environ["GANGWAY_BENCH_KEY"],
                                      "-N", str(n), "--ppn", str(ppn), *over, *flags, *(f for k in names for f in ("-x", k)), "--", *cmd]
    if "floor" not in skip:
        if not SETTINGS[settings]:
            out["hostname", SPAWN] = [str(WORK / "spawn"), str(n * ppn), "4", "hostname"]
        out["mpi", HYDRA] = ["mpiexec.mpich", "-launcher", "fork", "-n", str(n * ppn), hello]
    return out


def once(argv, program, ppn, hosts, timeout, one_host, settings):
    """Runs argv and returns its wall seconds, or an error's text."""
    ranks = hosts * ppn
    env = {**os.environ, **SETTINGS[settings], "HELLO_PAUSE": str(pause_ms(ppn))}
    start = time.perf_counter()
    p = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
    try:
        out, err = p.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(p.pid, signal.SIGKILL)
        p.communicate()
        kill_ranks(hosts)
        return None, f"hung for {timeout:g} s"
    wall = time.perf_counter() - start
    lines = out.decode(errors="replace").splitlines()
    if p.returncode != 0:
        return None, f"exit status {p.returncode}: {err.decode(errors='replace').strip()[-300:]}"
    if program == "mpi":
        seen = [l.split()[3] for l in lines if l.startswith("hello ") and f"/{ranks} on " in l]
        if sum(l == f"sum {ranks * (ranks - 1) // 2} of {ranks} ranks" for l in lines) != 1:
            return None, f"no right sum of {ranks} ranks in {len(lines)} lines"
    else:
        seen = [l.strip() for l in lines if l.strip()]
    if len(seen) != ranks:
        return None, f"{len(seen)} of {ranks} ranks' lines"
    if not one_host and len(set(seen)) != hosts:
        return None, f"ran on {sorted(set(seen))}, want {hosts} hosts"
    return wall - (pause_ms(ppn) / 1000 if program == "mpi" else 0), None


def kill_ranks(hosts):
    """Ends what a killed launcher left behind: ranks would spin and slow down
    what is timed next, a Slurm job would keep its nodes."""
    script = f'for p in /proc/[0-9]*; do [ "$(readlink $p/exe)" = {WORK / "hello"} ] && kill -9 ${{p#/proc/}}; done; true'
    for i in range(hosts + 1):
        subprocess.run(["ssh", f"n{i}", script], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    if "SLURM_CONF" in os.environ:
        subprocess.run(["scancel", "--user=root"], stdin=subprocess.DEVNULL)
        deadline = time.monotonic() + 30
        while subprocess.run(["squeue", "-h"], text=True, stdout=subprocess.PIPE).stdout.strip():
            if time.monotonic() > deadline:
                sys.exit("launch: a Slurm job survives scancel")
            time.sleep(0.1)


def inside(a):
    skip = set(filter(None, a.skip.split(",")))
    if "gangway" not in skip:
        wait_agents(a)
    results, errors = {}, {}
    tables = list(SETTINGS) if a.settings == "both" else [a.settings]
    launches = ways(a, skip) if "gangway" not in skip else {}
    for ppn in map(int, a.ppn.split(",")):
        todo = [((t, *k), argv) for t in tables for k, argv in cases(a, skip, ppn, t, launches).items()]
        for rnd in range(a.rounds + 1):
            k = rnd % len(todo)
            for (settings, program, name), argv in todo[k:] + todo[:k]:
                time.sleep(a.rest)
                wall, err = once(argv, program, ppn, a.hosts, a.timeout, "one host" in name, settings)
                key = (settings, ppn, program, name)
                if err:
                    errors.setdefault(key, []).append(err)
                    print(f"round {rnd}, {ppn} a host, {program}, {name}, {settings}: {err}", file=sys.stderr)
                elif rnd > 0:  # round 0 warms the caches
                    results.setdefault(key, []).append(wall)
            print(f"{ppn} ranks a host: round {rnd} of {a.rounds}", file=sys.stderr)
    report(a, tables, results, errors)
    return 1 if errors else 0


def report(a, tables, results, errors):
    rows = []
    for key in sorted({*results, *errors}):
        walls = results.get(key, [])
        row = dict(zip(("settings", "ranks_per_host", "program", "launcher"), key), runs=len(walls), failed=len(errors.get(key, [])))
        if walls:
            row |= {"median_s": statistics.median(walls), "min_s": min(walls), "max_s": max(walls)}
        else:
            row["error"] = errors[key][-1]
        rows.append(row)
    at = {(r["settings"], r["ranks_per_host"], r["program"], r["launcher"]): r.get("median_s") for r in rows}

    def base(r, name):
        return at.get((r["settings"], r["ranks_per_host"], r["program"], name))

    srun = {"hostname": "srun", "mpi": SRUN}
    md = []
    for t in tables:
        set_ = " ".join(f"{k}={v}" for k, v in SETTINGS[t].items())
        md += [f"## {t[0].upper()}{t[1:]}" + (f": {set_}, for all" if set_ else ""), "",
               "| ranks a host | program | launcher | median s | min | max | runs | failed | to srun | ms over one host's Hydra |", "|" + "---|" * 10]
        for r in rows:
            if r["settings"] != t:
                continue
            f = lambda k: f"{r[k]:.3f}" if k in r else "–"
            b, h, m = base(r, srun[r["program"]]), base(r, HYDRA), r.get("median_s")
            md.append(f"| {r['ranks_per_host']} | {r['program']} | {r['launcher']} | {f('median_s')} | {f('min_s')} | {f('max_s')} | {r['runs']} | {r['failed']} "
                      f"| {f'{m / b:.2f}' if m and b else '–'} | {f'{1000 * (m - h):+.0f}' if m and h else '–'} |")
        md.append("")
    md += targets(rows, base, srun)
    text = "\n".join(md)
    print(text)
    facts = {
        "date": time.strftime("%Y-%m-%d"), "hosts": a.hosts, "rounds": a.rounds, "cores": os.cpu_count(),
        "kernel": platform.release(), "mpi_env": MPI_ENV, "settings": SETTINGS,
        "versions": {n: version(c) for n, c in {"mpich": ["mpichversion"], "slurm": ["srun", "--version"], "ssh": ["ssh", "-V"],
                                                "gangway": [a.gangway, "version"]}.items()},
    }
    if a.write:
        (HERE / "results.json").write_text(json.dumps({"facts": facts, "rows": rows}, indent=1) + "\n")
        env = " ".join(f"{k}={v}" for k, v in MPI_ENV.items())
        v = "; ".join(f"{k}: {t}" for k, t in facts["versions"].items() if t)
        (HERE / "RESULTS.md").write_text(
            "# Launch times\n\n"
            f"Wall seconds of whole commands on one machine of {facts['cores']} cores, {a.hosts} lab hosts beside the launcher's, "
            f"{a.rounds} rounds interleaved after one to warm up, {a.rest:g} s of rest before each command; {facts['date']}, Linux {facts['kernel']}.\n"
            f"{v}.\nSettings, the same for all: {env}; Slurm without accounting and cgroups; gangway against standing agents "
            "(TLS), its ranks bound to all of their host's cores, as the others' are; the MPI program's own pause is taken off; `mpiexec` opens its ssh sessions anew each time, as it does. The machine is shared and has fewer cores than "
            "hosts: trust the ratios.\n`posix_spawn` and Hydra on one host are the floor: the same number of processes with no network.\n\n"
            + text + "\n\nAgain: `make bench-launch`, or `python3 benchmarks/peers/launch/run.py --write`.\n")


# What gangway is to reach, in medians.
HOSTNAME_TO_SRUN = 0.5  # at most
MPI_TO_SRUN = 1.0       # at most
MPI_OVER_HYDRA = 0.050  # seconds at most over as many ranks on one host


def targets(rows, base, srun):
    md = ["## Targets", "", "| settings | ranks a host | target | measured | |", "|---|---|---|---|---|"]

    def line(r, target, value, text, limit):
        md.append(f"| {r['settings']} | {r['ranks_per_host']} | {target} | {text} | {'met' if value <= limit else '**missed**'} |")

    for r in rows:
        m, s, h = r.get("median_s"), base(r, srun[r["program"]]), base(r, HYDRA)
        if not m:
            continue
        if (r["program"], r["launcher"]) == ("hostname", "gangway") and s:
            line(r, f"hostname ≤ {HOSTNAME_TO_SRUN} × srun", m / s, f"{m / s:.2f} ×", HOSTNAME_TO_SRUN)
        if (r["program"], r["launcher"]) == ("mpi", "gangway pmi"):
            if s:
                line(r, "MPI hello ≤ srun", m / s, f"{m / s:.2f} ×", MPI_TO_SRUN)
            if h:
                line(r, f"MPI hello ≤ one host's Hydra + {1000 * MPI_OVER_HYDRA:.0f} ms", m - h, f"{1000 * (m - h):+.0f} ms", MPI_OVER_HYDRA)
    return md


def version(cmd):
    try:
        r = subprocess.run(cmd, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=10)
        return r.stdout.splitlines()[0].replace("\t", " ").strip() if r.returncode == 0 and r.stdout else ""
    except (OSError, subprocess.TimeoutExpired):
        return ""


if __name__ == "__main__":
    args = arguments()
    sys.exit(inside(args) if args.inside else outside(args))
