#!/bin/bash
# make demo: an MPI program on this machine and, as root, on four lab hosts.
set -u
cd "$(dirname "$0")/../.."
root=$PWD
work=.cache/demo
mkdir -p $work
gangway=$root/bin/gangway

show() { printf '\n$ %s\n' "$1"; shift; "$@"; }

cc=$(command -v mpicc.mpich || command -v mpicc || true)
if [ -n "$cc" ] && "$cc" -O1 -o $work/hello examples/hello/hello.c; then
	program=($root/$work/hello)
else
	echo "demo: no mpicc here, so hostname stands in for an MPI program"
	program=(hostname)
fi
status=0
short() { echo "${program[0]##*/}"; }
show "gangway plan -n 2 -- ./$(short)" "$gangway" plan -n 2 --oversubscribe -- "${program[@]}" || status=1
show "gangway run -n 2 -- ./$(short)" "$gangway" run -n 2 --oversubscribe -- "${program[@]}" || status=1

if [ "$(id -u)" != 0 ]; then
	echo; echo "demo: not root, so no lab of four hosts; on real ones: gangway run --hosts 'n[1-4]' --ppn 1 -- ./hello"
	exit $status
fi
CGO_ENABLED=0 go build -o bin/labctl ./internal/lab/labctl || exit 1
lab=$(mktemp -d /tmp/gwdemo.XXXXXX)
trap 'bin/labctl down --dir "$lab" >/dev/null 2>&1; rm -rf "$lab"' EXIT
echo
echo "demo: four hosts from namespaces, each with its own sshd, joined by a bridge"
bin/labctl up 4 --dir "$lab" || exit 1
# Lab hosts share a kernel: without this UCX would find shared memory between them.
export UCX_TLS=tcp,self UCX_NET_DEVICES=eth0
show "gangway plan --hosts 'n[1-4]' --ppn 1 -- ./$(short)" \
	bin/labctl exec --dir "$lab" n0 -- "$gangway" plan --hosts 'n[1-4]' --ppn 1 -- "${program[@]}" || status=1
show "gangway run --hosts 'n[1-4]' --ppn 1 -- ./$(short)" \
	bin/labctl exec --dir "$lab" n0 -- "$gangway" run --hosts 'n[1-4]' --ppn 1 -- "${program[@]}" || status=1
echo
echo "bytes received and sent by each host:"
bin/labctl bytes --dir "$lab"
exit $status
