#!/usr/bin/env python3
"""mpi4py's own tests under gangway and under each MPI's mpirun.

The tests of mpi4py's source distribution, built for each MPI (.ci/deps.sh
--suite), run with every MPI in every place (this host; lab hosts, with root) by
every way (the MPI's own mpirun, gangway through mpirun, gangway by PMI). The
MPI's own mpirun is the judge: what passes under it on every rank must pass
under gangway too. What differs is run again alone, three times: what passes
then is told as unsteady, the rest is a difference and the exit status is 1.

A test that stops making progress, or ends the program, is noted so and left out
when the rest goes on in a new run.
"""
import argparse
import collections
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
CACHE = ROOT / ".cache"
LABCTL = ROOT / "bin/labctl"
PYTHON = "/usr/bin/python3"

WAYS = ["plain", "mpirun", "pmi"]
# What the launchers of the MPICH family and the ranks need beside PATH; the
# hosts of a lab share a kernel, so every library must be told to use the wire.
WIRE = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": "eth0", "FI_PROVIDER": "tcp", "OMPI_MCA_btl": "tcp,self", "OMPI_MCA_btl_tcp_if_include": "eth0"}

# Differences that follow from what a way is, by way and beginning of the test's id.
EXPECTED = {}


class Flavour:
    def __init__(self, name, mpi, venv=None, ways=WAYS, mpirun=None, leave_out=None):
        self.name, self.mpi, self.ways = name, mpi, ways
        self.leave_out = leave_out or {}  # beginning of a module's name → why
        self.site = CACHE / f"mpi4py-{name}"
        self.venv = CACHE / venv if venv else None
        self.mpirun = mpirun or str(self.venv / "bin/mpiexec")

    def env(self):
        e = {"PYTHONPATH": str(self.site), "PYTHONDONTWRITEBYTECODE": "1"}
        if self.venv:
            e["PATH"] = f"{self.venv}/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
            e["LD_LIBRARY_PATH"] = f"{self.venv}/lib"
        else:
            e["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
        if self.mpi == "intel":
            e["I_MPI_ROOT"] = str(self.venv)
            # With matched probes mpi4py leaves out its tests of spawning by this MPI.
            e["MPI4PY_RC_RECV_MPROBE"] = "0"
        return e

    def missing(self):
        if not (self.site / ".packages").exists():
            return f"{self.site} is not there: .ci/deps.sh --suite"
        return "" if shutil.which(self.mpirun) else f"{self.mpirun} is not there"


FLAVOURS = [
    Flavour("mpich4", "mpich", mpirun="mpiexec.mpich",
            leave_out={"test_util_sync": "one-sided locks of MPICH 4.0.2 hang now and then with ranks of one host, under its own mpiexec too"}),
    Flavour("mpich5", "mpich", "venv-mpich5"),
    Flavour("intel", "intel", "venv-intel"),
    Flavour("openmpi4", "openmpi", ways=["plain", "mpirun"], mpirun="mpirun.openmpi",
            leave_out={"test_spawn": "MPI_Comm_spawn hangs now and then in Open MPI 4.1, under its own mpirun too",
                       "test_util_pool": "its workers are spawned"}),
    Flavour("openmpi5", "openmpi", "venv-ompi5", ways=["plain", "mpirun"]),
]


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--flavours", default=",".join(f.name for f in FLAVOURS))
    p.add_argument("--places", default="host,lab")
    p.add_argument("--ways", default=",".join(WAYS))
    p.add_argument("--modules", default="", help="regular expression of test modules (default: all)")
    p.add_argument("--hosts", type=int, default=2, help="of the lab, one rank each (default 2)")
    p.add_argument("--ranks", type=int, default=2, help="on this host (default 2)")
    p.add_argument("--stall", type=float, default=60, help="seconds without progress until a test has hung")
    p.add_argument("--limit", type=float, default=1800, help="seconds for all tests of one flavour, place and way")
    p.add_argument("--gangway", default=str(ROOT / "bin/gangway"))
    p.add_argument("--write", action="store_true", help="write results.json and RESULTS.md")
    return p.parse_args()


class Place:
    """Where ranks run: this host, or hosts of a lab."""

    def __init__(self, name, a):
        self.name, self.dir = name, ""
        self.ranks = a.ranks if name == "host" else a.hosts
        if name == "lab":
            subprocess.run(["go", "build", "-o", LABCTL, "./internal/lab/labctl"], cwd=ROOT, check=True, env={**os.environ, "CGO_ENABLED": "0"})
            self.dir = tempfile.mkdtemp(prefix="gwsuite.", dir="/tmp")
            subprocess.run([LABCTL, "up", str(a.hosts), "--dir", self.dir], check=True, stdout=subprocess.DEVNULL)

    def argv(self, f, way, gangway, env, cmd):
        n, hosts = str(self.ranks), [f"n{i}" for i in range(1, self.ranks + 1)]
        if way == "plain":
            if f.mpi == "openmpi":
                at = ["--host", ",".join(f"{h}:1" for h in hosts)] if self.dir else []
                line = [f.mpirun, "--allow-run-as-root", *(["--oversubscribe"] if f.name == "openmpi4" else ["--map-by", ":OVERSUBSCRIBE"]), "--bind-to", "none", *at, "-n", n]
                line += [w for k in env for w in ("-x", k)]
            else:
                at = ["-launcher", "ssh", "-hosts", ",".join(hosts), "-ppn", "1"] if self.dir else ["-launcher", "fork"]
                line = [f.mpirun, *at, "-n", n]
        else:
            # The hosts of a lab are one machine: with all its cores for each, as
            # under mpirun, else every host's rank is confined to the first core.
            at = ["--hosts", f"n[1-{n}]", "--ppn", "1", "-c", str(os.cpu_count() or 1)] if self.dir else ["--oversubscribe", "-n", n]
            line = [gangway, "run", "--mpi", f.mpi, "--launch", way, "--bind", "none", "--kill-grace", "200ms", *at]
            line += [w for k in env for w in ("-x", k)] + ["--"]
        line += cmd
        return [str(LABCTL), "exec", "--dir", self.dir, "n0", "--", *line] if self.dir else line

    def down(self):
        if self.dir:
            subprocess.run([LABCTL, "down", "--dir", self.dir], check=False)
            shutil.rmtree(self.dir, ignore_errors=True)


def ended(pid):
    """Ends a run and all that it started here: mpirun's ranks are in sessions of
    their own, but have its directory in their environment."""
    mark = f"GANGWAY_SUITE_RUN={pid}".encode()
    for _ in range(50):
        found = False
        for d in Path("/proc").glob("[0-9]*"):
            try:
                if mark in (d / "environ").read_bytes().split(b"\0") and int(d.name) != os.getpid():
                    os.kill(int(d.name), signal.SIGKILL)
                    found = True
            except (OSError, ValueError):
                pass
        if not found:
            return
        time.sleep(0.1)


def once(a, place, f, way, scratch, extra, deadline):
    """Runs the tests once; returns ({id: {rank: outcome}}, culprits, how it ended)."""
    out = Path(tempfile.mkdtemp(dir=scratch))
    env = {**f.env(), **(WIRE if place.dir else {}), "GANGWAY_SUITE_RUN": out.name}
    if f.mpi == "openmpi":
        env |= {"OMPI_ALLOW_RUN_AS_ROOT": "1", "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1", "PRTE_ALLOW_RUN_AS_ROOT": "1", "PRTE_ALLOW_RUN_AS_ROOT_CONFIRM": "1"}
    cmd = [PYTHON, str(HERE / "rank.py"), str(out), str(f.site / "test/main.py"), *extra]
    with open(out / "log", "wb") as log:
        p = subprocess.Popen(place.argv(f, way, a.gangway, env, cmd), env={**os.environ, **env}, cwd=out,
                             stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        size, moved, how = -1, time.monotonic(), ""
        while p.poll() is None:
            now, total = time.monotonic(), sum(r.stat().st_size for r in out.glob("rank.*"))
            if total != size:
                size, moved = total, now
            if now - moved > a.stall or now > deadline:
                how = "hung" if now - moved > a.stall else "out of time"
                # gangway is asked first, so that it clears its nodes up.
                p.send_signal(signal.SIGTERM)
                try:
                    p.wait(10)
                except subprocess.TimeoutExpired:
                    os.killpg(p.pid, signal.SIGKILL)
                    p.wait()
                break
            time.sleep(0.1)
    ended(out.name)
    got, open_, finished = collections.defaultdict(dict), set(), 0
    for r in range(place.ranks):
        path, begun = out / f"rank.{r}", None
        for line in path.read_text().splitlines() if path.exists() else []:
            try:
                e = json.loads(line)
            except ValueError:
                continue
            if "start" in e:
                begun = e["start"]
            elif "test" in e:
                got[e["test"]][r] = e["is"]
                begun = None
            finished += "end" in e
        if begun:
            open_.add(begun)
    if not how and finished < place.ranks:
        how = f"died, exit status {p.returncode}"
    elif not how and p.returncode not in (0, 1):
        how = f"exit status {p.returncode}"
    tail = "" if not how else "\n".join((out / "log").read_text(errors="replace").splitlines()[-12:])
    return got, open_, how, finished == place.ranks, tail


def one(a, place, f, way, scratch):
    """All tests of a flavour by a way: {id: outcome}."""
    result, deadline = {}, time.monotonic() + a.limit
    extra = ["-i", a.modules] if a.modules else []
    # Modules that a way can't pass by design would only leave communicators
    # behind that make MPI_Finalize fail.
    for module in [*f.leave_out, *(k[:-1] for k in EXPECTED.get(way, {}) if k.endswith("."))]:
        extra += ["-e", f"^{module}"]
    for _ in range(40):
        skip = Path(scratch) / "done"
        skip.write_text("".join(f"*{i}\n" for i in result))
        got, culprits, how, whole, tail = once(a, place, f, way, scratch, ["--xfile", str(skip), *extra], deadline)
        for test, ranks in got.items():
            if test not in culprits:
                worst = [o for o in ranks.values() if o not in ("pass", "skip")]
                result[test] = worst[0] if worst else "pass" if "pass" in ranks.values() else "skip"
        if whole:
            # MPI_Finalize and the launcher's own end count as a test.
            result.setdefault("(exit)", how or "pass")
            break
        print(f"  {f.name} {place.name} {way}: {how} in {sorted(culprits) or 'no test'}", file=sys.stderr)
        if not culprits or how == "out of time":
            print(tail, file=sys.stderr)
        for c in culprits:
            result[c] = how.split(",")[0]
        if how == "out of time":
            result["(exit)"] = how
            break
        if not culprits and not got:
            result["(exit)"] = how
            break
    return result


def differences(a, place, f, way, judge, got, scratch):
    """What the judge passes and way doesn't, sorted into real, unsteady and expected."""
    real, unsteady, expected = {}, {}, {}
    for test in sorted(t for t, o in judge.items() if o == "pass" and got.get(t) != "pass"):
        is_ = got.get(test, "not run")
        if why := next((w for k, w in EXPECTED.get(way, {}).items() if test.startswith(k)), ""):
            expected[test] = why
            continue
        if test.startswith("("):
            real[test] = is_
            continue
        for _ in range(3):
            again, culprits, _, _, _ = once(a, place, f, way, scratch, ["-i", test.split(".")[0], "-k", f"*{test}"], time.monotonic() + 2 * a.stall)
            if not culprits and set(again.get(test, {}).values()) == {"pass"}:
                unsteady[test] = is_
                break
        else:
            real[test] = is_
    return real, unsteady, expected


def main():
    a = arguments()
    flavours = [f for f in FLAVOURS if f.name in a.flavours.split(",")]
    text = subprocess.run([a.gangway, "run", "--help"], text=True, stdout=subprocess.PIPE, check=True).stdout
    if "pmi" in a.ways.split(",") and not any(" --launch " in l and "pmi" in l for l in text.splitlines()):
        print(f"{a.gangway} has no --launch pmi: that way is left out", file=sys.stderr)
        a.ways = ",".join(w for w in a.ways.split(",") if w != "pmi")
    rows, bad = [], False
    CACHE.mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory(prefix="mpi-suite.", dir=CACHE) as scratch:
        for name in a.places.split(","):
            if name == "lab" and os.geteuid() != 0:
                print("the lab needs root: only this host's runs are made", file=sys.stderr)
                continue
            place = Place(name, a)
            try:
                for f in flavours:
                    if why := f.missing():
                        print(f"{f.name}: {why}", file=sys.stderr)
                        rows.append({"mpi": f.name, "place": name, "way": "–", "skipped": why})
                        continue
                    for module, why in f.leave_out.items():
                        print(f"{f.name}: {module} is left out: {why}", file=sys.stderr)
                    judge = None
                    for way in [w for w in f.ways if w in ["plain", *a.ways.split(",")]]:
                        from_ = time.monotonic()
                        got = one(a, place, f, way, scratch)
                        row = {"mpi": f.name, "place": name, "way": way, "ranks": place.ranks, "seconds": round(time.monotonic() - from_, 1),
                               "counts": dict(collections.Counter(got.values()))}
                        if way == "plain":
                            judge = got
                            row["not passed"] = {t: o for t, o in got.items() if o not in ("pass", "skip")}
                        else:
                            row["differences"], row["unsteady"], row["expected"] = differences(a, place, f, way, judge, got, scratch)
                            row["only gangway"] = sorted(t for t, o in got.items() if o == "pass" and judge.get(t) not in ("pass", None))
                            bad |= bool(row["differences"]) or got.get("(exit)") is None
                        rows.append(row)
                        print(json.dumps(row), flush=True)
            finally:
                place.down()
    table = report(rows)
    print(table)
    if a.write:
        (HERE / "results.json").write_text(json.dumps(rows, indent=1) + "\n")
        (HERE / "RESULTS.md").write_text(
            "# mpi4py's own tests under gangway and under each MPI's mpirun\n\n"
            f"{time.strftime('%Y-%m-%d')}; every rank's outcomes count. The judge is the MPI's own mpirun (plain): a difference is a test that passes "
            "under it and, run alone three times more, never under gangway; unsteady ones pass when run again.\n\n" + table +
            "\n\nAgain: `make mpi-suite`.\n")
    return 1 if bad else 0


def report(rows):
    md = ["| MPI | place | way | ranks | passed | skipped | other | differences | unsteady | by design | seconds |", "|" + "---|" * 11]
    notes = [f"- {f.name}: `{m}` is left out: {why}" for f in FLAVOURS for m, why in f.leave_out.items() if any(r["mpi"] == f.name for r in rows)]
    for r in rows:
        if "skipped" in r:
            md.append(f"| {r['mpi']} | {r['place']} | not run: {r['skipped']} |" + " |" * 8)
            continue
        c = dict(r["counts"])
        ok, skipped = c.pop("pass", 0), c.pop("skip", 0)
        md.append(f"| {r['mpi']} | {r['place']} | {r['way']} | {r['ranks']} | {ok} | {skipped} | {', '.join(f'{v} {k}' for k, v in c.items()) or '–'} | "
                  + " | ".join("–" if r["way"] == "plain" else str(len(r[k])) for k in ("differences", "unsteady", "expected")) + f" | {r['seconds']} |")
        for k in ("differences", "unsteady"):
            notes += [f"- {r['mpi']}, {r['place']}, {r['way']}: {k}: `{t}`: {o}" for t, o in r.get(k, {}).items()]
        for why in sorted(set(r.get("expected", {}).values())):
            notes.append(f"- {r['mpi']}, {r['place']}, {r['way']}: by design: {why}: {sum(w == why for w in r['expected'].values())} tests")
        for t, o in r.get("not passed", {}).items():
            notes.append(f"- {r['mpi']}, {r['place']}, plain: does not pass: `{t}`: {o}")
    return "\n".join(md) + ("\n\n" + "\n".join(notes) if notes else "")


if __name__ == "__main__":
    sys.exit(main())
