#!/bin/bash
# A sweep of small OpenFOAM runs, each a gang of two ranks with Open MPI, before
# them a task each that prepares the case, after them a report. Needs openfoam
# and openfoam-examples (.ci/deps.sh --all).
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
. "$here/../launcher.sh" cavity-sweep
command -v icoFoam mpirun.openmpi >/dev/null || fail "no icoFoam or mpirun.openmpi: .ci/deps.sh --all installs them"
cp "$here"/{job.yaml,prepare.sh,report.sh} "$here/../cfd-cavity/setup.sh" "$work/"
cd "$work"
gangway submit --dry-run job.yaml
gangway submit --wait job.yaml
gangway task logs cavity-sweep report | tee report
# The more viscous the fluid, the more of it the lid has set going.
[ "$(wc -l <report)" = 5 ] || fail "the report has $(wc -l <report) lines"
awk '{ if (NR > 1 && $NF <= last) exit 1; last = $NF }' report || fail "the energy does not rise with the viscosity"
echo "cavity-sweep: five runs, in order"
