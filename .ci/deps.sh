#!/bin/bash
# Installs what the tests, the demo and the examples need: Debian packages, and
# MPICH 5, Intel MPI, Open MPI 5 and azure-batch in environments of their own
# under .cache; mpi4py, built from source for each MPI, beside them. It says what it is about to do, does nothing when all is there, and
# starts no service.
#
#   .ci/deps.sh           what make test needs
#   .ci/deps.sh --demo    only what make demo needs
#   .ci/deps.sh --all     Slurm, HyperQueue, OpenFOAM and Azure's command line too: peers, examples, verify
#   .ci/deps.sh --suite   what make mpi-suite needs
set -u
cd "$(dirname "$0")/.."

intel=2021.17.2
ompi5=5.0.10
mpich5=5.0.2
mpi4py=4.1.2
azure_batch=15.1.0
azure_batch14=14.2.0
azure_cli=2.91.0
hyperqueue=0.27.0

packages="gcc libc6-dev mpich libmpich-dev openmpi-bin libopenmpi-dev openssh-server openssh-client iproute2 hwloc curl"
venvs=1
case "${1:-}" in
"") ;;
--demo) packages="gcc libc6-dev mpich libmpich-dev openssh-server openssh-client iproute2" venvs=0 ;;
--all) packages="$packages slurm-wlm munge openfoam openfoam-examples parallel imagemagick tesseract-ocr tesseract-ocr-eng fonts-dejavu-core python3" ;;
--suite) ;;
*) sed -n '2,11s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
[ $venvs = 1 ] && packages="$packages python3-venv python3-dev"

say() { echo "deps: $*"; }

missing=""
for p in $packages; do
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null)" = installed ] || missing="$missing $p"
done
status=0
if [ -n "$missing" ]; then
	if ! command -v apt-get >/dev/null; then
		say "this is not Debian or Ubuntu; tests that need these will skip:$missing"
	elif [ "$(id -u)" != 0 ]; then
		say "not root, so nothing is installed; tests that need these packages will skip:"
		say "  sudo apt-get install --no-install-recommends$missing"
	else
		say "installing with apt-get:$missing"
		# Packages of servers start them when configured, unless a policy says no.
		policy=/usr/sbin/policy-rc.d
		if [ ! -e $policy ]; then
			trap 'rm -f $policy' EXIT
			printf '#!/bin/sh\nexit 101\n' >$policy
			chmod 755 $policy
		fi
		export DEBIAN_FRONTEND=noninteractive
		install() { apt-get -qq -o Dpkg::Use-Pty=0 -o DPkg::Lock::Timeout=300 install -y --no-install-recommends $missing >.cache/apt.log 2>&1 </dev/null; }
		mkdir -p .cache
		if ! { apt-get -qq update >.cache/apt.log 2>&1 && install; }; then
			tail -20 .cache/apt.log
			say "apt-get failed; the whole log is in .cache/apt.log"
			status=1
		fi
	fi
fi

# venv NAME PACKAGE… makes .cache/NAME with exactly these packages.
venv() {
	local dir=.cache/$1
	shift
	[ "$(cat "$dir/.packages" 2>/dev/null)" = "$*" ] && return
	say "installing with pip into $dir: $*"
	rm -rf "$dir"
	mkdir -p .cache
	# The system's python3, not one of the user's: the hosts of the lab see it too.
	local python=/usr/bin/python3
	[ -x $python ] || python=python3
	if $python -m venv "$dir" && "$dir/bin/pip" -q install --disable-pip-version-check "$@" </dev/null; then
		echo "$*" >"$dir/.packages"
	else
		rm -rf "$dir"
		say "pip could not install $*; tests that need them will skip"
	fi
}

# mpi4py NAME MPICC builds mpi4py with that compiler into .cache/mpi4py-NAME,
# for the system's python3. Its tests are only in the source distribution.
mpi4py() {
	local dir=.cache/mpi4py-$1 cc=$2 lib= sdist=.cache/mpi4py-$mpi4py.tar.gz
	local mark="mpi4py==$mpi4py built with $cc of ${3:-Debian}"
	[ "$(cat "$dir/.packages" 2>/dev/null)" = "$mark" ] && return
	command -v "$cc" >/dev/null || return
	say "building mpi4py $mpi4py with $cc into $dir"
	# An environment has pip. Python puts its include directory before all others,
	# so not that of an MPI: every mpi4py would be built with that one's mpi.h.
	local python=.cache/venv-azure-batch/bin/python
	rm -rf "$dir"
	[ -n "${3:-}" ] && lib=-L$PWD/$(dirname "$(dirname "$cc")")/lib
	if { [ -f "$sdist" ] || $python -m pip -q download --disable-pip-version-check --no-deps --no-binary mpi4py "mpi4py==$mpi4py" -d .cache </dev/null; } &&
		# -O0: what is tested is how ranks start, and the compiler takes most of the
		# time. Python's own -L names the system's directory, where another libmpi.so is.
		MPICC=$(realpath -s "$(command -v "$cc")") I_MPI_ROOT=$PWD/.cache/venv-intel CFLAGS=-O0 LDFLAGS=$lib $python -m pip -q install --disable-pip-version-check \
			--root-user-action=ignore --no-deps --no-cache-dir --target "$dir" "$sdist" </dev/null; then
		tar -xzf "$sdist" -C "$dir" --strip-components=1 "mpi4py-$mpi4py/test" && echo "$mark" >"$dir/.packages"
	else
		rm -rf "$dir"
		say "mpi4py could not be built with $cc; its tests will skip"
	fi
}
if [ $venvs = 1 ]; then
	venv venv-intel "impi-rt==$intel" "impi-devel==$intel"
	venv venv-mpich5 "mpich==$mpich5"
	venv venv-ompi5 "openmpi==$ompi5"
	venv venv-azure-batch "azure-batch==$azure_batch"
	mpi4py mpich4 mpicc.mpich
	if [ "${1:-}" = --all ] || [ "${1:-}" = --suite ]; then
		mpi4py mpich5 .cache/venv-mpich5/bin/mpicc "$mpich5"
		mpi4py intel .cache/venv-intel/bin/mpicc "$intel"
		mpi4py openmpi4 mpicc.openmpi
		mpi4py openmpi5 .cache/venv-ompi5/bin/mpicc "$ompi5"
	fi
	if [ "${1:-}" = --all ]; then # az is 700 MB
		venv venv-azure-batch14 "azure-batch==$azure_batch14"
		venv venv-azure-cli "azure-cli==$azure_cli"
		venv venv-hyperqueue "hyperqueue==$hyperqueue"
	fi
fi
exit $status
