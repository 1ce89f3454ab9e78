#!/bin/bash
# OpenFOAM's cavity over four hosts with gangway, and on one host with plain
# mpirun: the residuals must be the same, and the ranks' data must have crossed
# the hosts' interfaces. Needs root (for the lab), Debian's openfoam,
# openfoam-examples and openmpi-bin: .ci/deps.sh --all installs them.
set -eu
cd "$(dirname "$0")/../.."
root=$PWD
ranks=4
cells=${CELLS:-20} # per side; the tutorial has 20
tutorial=/usr/share/doc/openfoam-examples/examples/incompressible/icoFoam/cavity/cavity
foam=/usr/share/openfoam/etc/bashrc
gangway=$root/bin/gangway
labctl=$root/bin/labctl
work=$root/.cache/cfd-cavity

fail() { echo "cfd-cavity: $*" >&2; exit 1; }
[ "$(id -u)" = 0 ] || fail "needs root: the hosts are network namespaces"
[ -d $tutorial ] || fail "no $tutorial: apt-get install openfoam openfoam-examples"
[ -x "$gangway" ] || make -s build
CGO_ENABLED=0 go build -o "$labctl" ./internal/lab/labctl

rm -rf "$work"
mkdir -p "$work"
lab=$(mktemp -d /tmp/gwcfd.XXXXXX)
trap '"$labctl" down --dir "$lab" >/dev/null 2>&1; rm -rf "$lab"' EXIT

# OpenFOAM's own settings, for this shell and for every node (--setup).
cat >"$work/setup.sh" <<SETUP
export WM_PROJECT_DIR=/usr/share/openfoam FOAM_ETC=/usr/share/openfoam/etc
export FOAM_SIGFPE=false
SETUP
prepare() { # prepare DIR: the tutorial, cut into $ranks pieces
	cp -r $tutorial "$1"
	find "$1" -name '*.gz' -exec gunzip -f {} +
	sed -i "s/(20 20 1)/($cells $cells 1)/" "$1/system/blockMeshDict"
	# 100 steps, as in the tutorial; fewer files.
	sed -i -E 's/^deltaT .*/deltaT 0.005;/; s/^endTime .*/endTime 0.5;/; s/^writeInterval .*/writeInterval 100;/' "$1/system/controlDict"
	cat >"$1/system/decomposeParDict" <<DICT
FoamFile { version 2.0; format ascii; class dictionary; object decomposeParDict; }
numberOfSubdomains $ranks;
method simple;
coeffs { n ($ranks 1 1); delta 0.001; }
simpleCoeffs { n ($ranks 1 1); delta 0.001; }
DICT
	(cd "$1" && blockMesh >log.blockMesh 2>&1 && decomposePar >log.decomposePar 2>&1) || { tail -20 "$1"/log.*; fail "preparing $1"; }
}
. "$work/setup.sh"
prepare "$work/plain"
prepare "$work/gangway"

echo "plain mpirun on one host, $ranks ranks"
export OMPI_MCA_btl=tcp,self OMPI_MCA_mpi_yield_when_idle=1
(cd "$work/plain" && OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1 \
	mpirun.openmpi --oversubscribe -np $ranks icoFoam -parallel >log.icoFoam 2>&1) || { tail -20 "$work/plain/log.icoFoam"; fail "plain mpirun"; }

echo "four hosts: $labctl up 4"
"$labctl" up 4 --dir "$lab" >/dev/null
bytes() { "$labctl" bytes --dir "$lab"; }
bytes >"$work/bytes.before"
echo "gangway run --hosts 'n[1-4]' --ppn 1 --mpi openmpi --setup setup.sh -- icoFoam -parallel"
# Lab hosts are one machine and each gives out its first core first: with two
# cores a rank the four ranks spread over the machine as plain mpirun's do.
cores=$(( $(nproc) > 1 ? 2 : 1 ))
"$labctl" exec --dir "$lab" n0 -- "$gangway" run --hosts 'n[1-4]' --ppn 1 -c $cores --mpi openmpi -D "$work/gangway" \
	--setup "$work/setup.sh" -x OMPI_MCA_btl=tcp,self -x OMPI_MCA_mpi_yield_when_idle=1 -- icoFoam -parallel >"$work/gangway/log.icoFoam" 2>"$work/gangway/log.err" ||
	{ tail -20 "$work/gangway"/log.icoFoam "$work/gangway"/log.err; fail "gangway run"; }
bytes >"$work/bytes.after"

# Residual lines carry every digit that the solver prints.
residuals() { grep -E 'Solving for|continuity errors|Courant' "$1/log.icoFoam"; }
residuals "$work/plain" >"$work/plain.residuals"
residuals "$work/gangway" >"$work/gangway.residuals"
n=$(wc -l <"$work/plain.residuals")
[ "$n" -gt 100 ] || fail "plain mpirun printed only $n residual lines"
cmp -s "$work/plain.residuals" "$work/gangway.residuals" || {
	diff "$work/plain.residuals" "$work/gangway.residuals" | head -10
	fail "the residuals differ"
}
echo "$n residual lines are equal; the last one: $(tail -1 "$work/gangway.residuals")"

# What starting alone costs is far below this; what the ranks exchange above.
echo "bytes through each host's interface before and after:"
paste "$work/bytes.before" "$work/bytes.after"
awk 'NR == FNR { was[$1] = $2 + $3; next }
	$1 != "n0" && $2 + $3 - was[$1] < 500000 { print $1 " moved only " $2 + $3 - was[$1] " bytes"; bad = 1 }
	END { exit bad }' "$work/bytes.before" "$work/bytes.after" || fail "the ranks did not use the network"
echo "cfd-cavity: passed"
