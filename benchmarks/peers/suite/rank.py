"""One rank of mpi4py's own tests: rank.py DIR MAIN.PY ARGS…

Runs MAIN.PY (test/main.py of mpi4py's source distribution) with ARGS, and
writes what became of each test to DIR/rank.N, a JSON object a line, as it
happens: {"start": ID} before a test, {"test": ID, "is": OUTCOME} after it, and
{"end": true} once all have run. A test that has started and has no outcome is
one that hung or ended the process.
"""
import json
import runpy
import sys
import tempfile
import unittest


class Recorder(unittest.TextTestResult):
    out = None  # the rank's file

    def put(self, **line):
        self.out.write(json.dumps(line) + "\n")
        self.out.flush()

    def startTest(self, test):
        self.worst = "pass"
        self.put(start=test.id())
        super().startTest(test)

    def stopTest(self, test):
        super().stopTest(test)
        self.put(test=test.id(), **{"is": self.worst})

    def note(self, outcome):
        if self.worst in ("pass", "skip"):
            self.worst = outcome

    def addError(self, test, err):
        super().addError(test, err)
        if isinstance(test, unittest.TestCase):
            self.note("error")
        else:  # setUpClass, setUpModule: no test of its own
            self.put(test=test.id(), **{"is": "error"})

    def addFailure(self, test, err):
        super().addFailure(test, err)
        self.note("fail")

    def addSkip(self, test, reason):
        super().addSkip(test, reason)
        self.note("skip")

    def addExpectedFailure(self, test, err):
        super().addExpectedFailure(test, err)
        self.note("expected failure")

    def addUnexpectedSuccess(self, test):
        super().addUnexpectedSuccess(test)
        self.note("unexpected success")

    def addSubTest(self, test, subtest, err):
        super().addSubTest(test, subtest, err)
        if err is not None:
            self.note("fail")


def main():
    where, program, *args = sys.argv[1:]
    # Files that all ranks open: /tmp is each host's own.
    tempfile.tempdir = where
    from mpi4py import MPI

    rank = MPI.COMM_WORLD.Get_rank()
    with open(f"{where}/rank.{rank}", "w") as out:
        Recorder.out = out
        Recorder.worst = "pass"
        out.write(json.dumps({"size": MPI.COMM_WORLD.Get_size(), "host": MPI.Get_processor_name()}) + "\n")
        unittest.TextTestRunner.resultclass = Recorder
        # The children that tests spawn are started with sys.executable and find
        # mpi4py by the path that they are told.
        sys.argv = [program, *args]
        sys.dont_write_bytecode = True
        try:
            runpy.run_path(program, run_name="__main__")
        except SystemExit:
            pass
        out.write(json.dumps({"end": True}) + "\n")


main()
