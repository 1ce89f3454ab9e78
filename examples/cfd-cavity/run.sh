#!/bin/bash
# OpenFOAM's lid-driven cavity, cut in four, over four hosts with Open MPI:
# gangway run in a lab of namespace hosts against a plain mpirun on one host.
# The residuals must be equal line by line, and the hosts' interface counters
# must show that the solver's traffic crossed the network.
#
#   run.sh [--launcher gangway|mpirun] [--cells N]
#
# mpirun takes Open MPI's own launch over ssh in gangway's place, to see what
# the machine does without gangway. Needs root, openfoam, openfoam-examples.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
launcher=gangway cells=20
while [ $# -gt 0 ]; do
	case $1 in
	--launcher) launcher=$2; shift 2 ;;
	--cells) cells=$2; shift 2 ;;
	*) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
	esac
done
fail() { echo "cfd-cavity: $*" >&2; exit 1; }

case_from=/usr/share/doc/openfoam-examples/examples/incompressible/icoFoam/cavity/cavity
[ "$(id -u)" = 0 ] || fail "the lab of four hosts needs root"
[ -d $case_from ] || fail "no $case_from: install openfoam-examples (.ci/deps.sh --all)"
command -v icoFoam mpirun.openmpi >/dev/null || fail "no icoFoam or mpirun.openmpi: .ci/deps.sh --all installs them"

work=$root/.cache/cfd-cavity
lab=$(mktemp -d /tmp/gwcfd.XXXXXX)
labctl() { "$root/bin/labctl" "$@"; }
cleanup() { labctl down --dir "$lab" >/dev/null 2>&1 || true; rm -rf "$lab"; }
trap cleanup EXIT
rm -rf "$work"
mkdir -p "$work"
(cd "$root" && CGO_ENABLED=0 go build -o bin/labctl ./internal/lab/labctl)
if [ $launcher = gangway ]; then make -C "$root" -s build; fi

. "$here/setup.sh"

echo "cfd-cavity: mesh of $cells x $cells cells, cut in four"
cp -r $case_from "$work/case"
cd "$work/case"
rm -f system/PDRblockMeshDict
sed -i -E "s/\(20 20 1\)/($cells $cells 1)/" system/blockMeshDict
# The time step shrinks with the cells, to keep the Courant number.
step=$(awk "BEGIN{printf \"%g\", 0.005*20/$cells}")
sed -i -E "s/^(deltaT +).*/\1$step;/; s/^(endTime +).*/\1$(awk "BEGIN{printf \"%g\", 100*$step}");/; s/^(writeInterval +).*/\1100;/" system/controlDict
cat >system/decomposeParDict <<'X'
FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }
numberOfSubdomains 4;
method simple;
simpleCoeffs { n (2 2 1); delta 0.001; }
X
blockMesh >"$work/blockMesh.log" 2>&1 || fail "blockMesh: see $work/blockMesh.log"
decomposePar >"$work/decomposePar.log" 2>&1 || fail "decomposePar: see $work/decomposePar.log"
cp -r "$work/case" "$work/reference"
cp -r "$work/case" "$work/lab"

residuals() { grep -E '^(Time =|smoothSolver|DICPCG|GAMG|DILUPBiCG|PCG|PBiCG|time step continuity|Courant)' "$1"; }

echo "cfd-cavity: plain mpirun on this host"
(cd "$work/reference" && OMPI_MCA_btl=self,vader,tcp mpirun.openmpi --allow-run-as-root --oversubscribe -n 4 icoFoam -parallel) \
	>"$work/reference.log" 2>&1 </dev/null || { tail -20 "$work/reference.log"; fail "the reference run failed"; }

labctl up 4 --dir "$lab"
sent() { labctl bytes --dir "$lab" | awk '$1 != "n0" {print $1, $3}'; }
on_n0() { labctl exec --dir "$lab" n0 -- "$@"; }
over_four() { # DIR COMMAND…: on n[1-4], one rank each
	local dir=$1
	shift
	cd "$dir"
	if [ $launcher = gangway ]; then
		on_n0 "$root/bin/gangway" run --hosts 'n[1-4]' --ppn 1 --mpi openmpi --setup "$here/setup.sh" -- "$@"
	else
		on_n0 mpirun.openmpi --allow-run-as-root --host n1,n2,n3,n4 -n 4 -x PATH -x WM_PROJECT_DIR \
			-x OMPI_MCA_btl -x OMPI_MCA_mpi_yield_when_idle --mca oob_tcp_if_include eth0 --mca btl_tcp_if_include eth0 "$@"
	fi
}

# What starting and ending a program costs on the wire, without the solver.
(over_four "$work/lab" true) >"$work/true.log" 2>&1 </dev/null || { tail "$work/true.log"; fail "$launcher can't run true"; }
sent >"$work/bytes.0"
(over_four "$work/lab" true) >>"$work/true.log" 2>&1 </dev/null || fail "$launcher can't run true again"
sent >"$work/bytes.1"
echo "cfd-cavity: $launcher over n1…n4"
from=$SECONDS
(over_four "$work/lab" icoFoam -parallel) >"$work/lab.log" 2>"$work/lab.err" </dev/null ||
	{ tail -20 "$work/lab.log" "$work/lab.err"; fail "$launcher: the solver failed"; }
sent >"$work/bytes.2"
echo "cfd-cavity: the solver took $((SECONDS - from)) s"

residuals "$work/reference.log" >"$work/reference.residuals" || fail "no residuals in $work/reference.log"
residuals "$work/lab.log" >"$work/lab.residuals" || fail "no residuals in $work/lab.log"
lines=$(wc -l <"$work/reference.residuals")
[ "$lines" -ge 300 ] || fail "only $lines residual lines: see $work/reference.log"
diff "$work/reference.residuals" "$work/lab.residuals" >"$work/diff" || { head -20 "$work/diff"; fail "residuals differ"; }
# The solver itself lists the hosts of its ranks.
hosts=$(grep -oE '^ *\(n[1-4] 1\)' "$work/lab.log" | sort -u | wc -l)
[ "$hosts" = 4 ] || fail "the solver's ranks ran on $hosts hosts, want one each on n1…n4: see $work/lab.log"
echo "cfd-cavity: $lines residual lines on 4 hosts equal those of one host"
echo "cfd-cavity: bytes sent by each host: host, a launch alone, with the solver:"
paste -d' ' "$work/bytes.0" "$work/bytes.1" "$work/bytes.2" | awk '
	{ launch = $4 - $2; solver = $6 - $4; printf "  %s %d %d\n", $1, launch, solver
	  if (solver < 2 * launch + 200000) bad = 1 }
	END { exit bad }' || fail "the interfaces hardly moved: the solver did not use the network"
tail -3 "$work/lab.residuals"
