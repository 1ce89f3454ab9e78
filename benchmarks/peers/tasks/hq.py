"""One HyperQueue: a server and a worker in this process, as its Python package
has them. Reads lines "N PROGRAM [ARG…]" and answers each with the seconds from
the submission of N tasks to the end of the last.

The package has no command line and no way to turn the journal on, so what is
measured keeps nothing on disk.
"""
import os
import sys
import tempfile
import time

from hyperqueue.cluster import LocalCluster, WorkerConfig
from hyperqueue.job import Job

cores = int(sys.argv[1])
answers = os.fdopen(os.dup(1), "w")
os.dup2(2, 1)  # its progress bars are not answers
with tempfile.TemporaryDirectory() as d, LocalCluster(server_dir=d, worker_config=WorkerConfig(cores=cores)) as cluster:
    client = cluster.client()
    print("ready", file=answers, flush=True)
    for line in sys.stdin:
        n, *argv = line.split()
        job = Job()
        for _ in range(int(n)):
            job.program(argv, stdout=None, stderr=None)
        start = time.perf_counter()  # the tasks are described; submitting and running counts
        client.wait_for_jobs([client.submit(job)])
        print(time.perf_counter() - start, file=answers, flush=True)
