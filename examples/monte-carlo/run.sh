#!/bin/bash
# The price of an option by Monte Carlo: 64 tasks of a sweep, and an MPI program
# that waits for them and adds their results up. Needs mpicc.mpich.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../launcher.sh" monte-carlo

cc -O2 -o "$work/price" "$here/price.c" -lm
mpicc.mpich -O2 -o "$work/merge" "$here/merge.c" -lm
mkdir "$work/results"
cp "$here/job.yaml" "$work/"

cd "$work"
gangway submit --dry-run job.yaml
gangway submit --wait job.yaml
gangway task logs monte-carlo merge | tee merged
grep -q '^64000000 paths in 64 batches, merged by 2 ranks: ' merged || fail "no price of 64 batches"
gangway job show monte-carlo
