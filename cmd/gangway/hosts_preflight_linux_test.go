package main

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gangway/internal/lab"
)

// on runs a shell script on host i of the lab.
func (b *bed) on(i int, script string) {
	b.t.Helper()
	if out, err := b.lab.Host(i).Command(context.Background(), "sh", "-ec", script).CombinedOutput(); err != nil {
		b.t.Fatalf("n%d: %s: %v\n%s", i, script, err, out)
	}
}

// addr is host i's address.
func (b *bed) addr(i int) string { return b.lab.Host(i).Addr().String() }

// TestHostsPreflight makes one host of three fail in every way that can be made
// here, and looks for the finding.
func TestHostsPreflight(t *testing.T) {
	prog := hello(t, "mpicc.mpich")
	long := "/tmp/" + strings.Repeat("d", 50)
	// The MPI program is never to be started with the error; where a warning is
	// looked for, a program that does not use what it links is enough.
	needs := needsLibrary(t)
	for _, c := range []struct {
		name   string
		opts   []lab.Option
		do     func(b *bed)
		args   []string // of run, before --
		prog   []string // default: the MPI program
		status int
		want   []string // in stderr
	}{
		{name: "good", args: []string{"-v"}, want: []string{"preflight: nodes checked: 3, findings: 0"}},
		{name: "closed port", status: 125, do: func(b *bed) { b.on(2, "ip route add unreachable "+b.addr(3)+"/32") },
			want: []string{"n2", "no TCP connection to n3", "firewall"}},
		{name: "closed port of the primary", status: 125, do: func(b *bed) { b.on(2, "ip route add unreachable "+b.addr(1)+"/32") },
			want: []string{"n2", "no TCP connection to n1", "firewall"}},
		{name: "docker0", args: []string{"-v", "--mpi", "mpich"}, do: func(b *bed) {
			for i := 1; i <= 3; i++ {
				b.on(i, "ip link add docker0 type bridge && ip link add va type veth peer name vb && ip link set va master docker0 && ip link set va up && ip link set vb up && ip addr add 172.17.0.1/16 dev docker0 && ip link set docker0 up && "+
					// A bridge is up a moment after its port is.
					"for k in $(seq 200); do ip -br link show docker0 | grep -q ' UP ' && exit 0; sleep 0.05; done; exit 1")
			}
		}, prog: []string{"sh", "-c", "echo devices $UCX_NET_DEVICES $FI_TCP_IFACE; exec " + prog},
			want: []string{"n[1-3]", "172.17.0.1 on docker0", "UCX_NET_DEVICES"}},
		{name: "loopback name", args: []string{"--preflight=full", "--mpi", "none"}, prog: []string{"true"}, do: func(b *bed) {
			b.on(2, "sed 's/^[0-9.]*\\([ \t]*n3\\)/127.0.1.1\\1/' /etc/hosts > /tmp/hosts; cat /tmp/hosts > /etc/hosts; rm /tmp/hosts")
		},
			want: []string{"host name n3 resolves to", "127.0.1.1", "/etc/hosts"}},
		{name: "small shm", status: 125, do: func(b *bed) { b.on(2, "mount -t tmpfs -o size=1m tmpfs /dev/shm") },
			want: []string{"n2", "/dev/shm has", "--shm-size"}},
		{name: "stale files", do: func(b *bed) {
			b.on(2, "head -c 1000000 /dev/zero > /dev/shm/vader_segment.n2.0.1.2; touch -d '1 hour ago' /dev/shm/vader_segment.n2.0.1.2; mkdir -p /tmp/ompi.n2.0/pid.999999; touch -d '1 hour ago' /tmp/ompi.n2.0")
		}, want: []string{"n2", "Open MPI's shared memory", "rm -r /dev/shm/vader_segment.*", "session directories"}},
		{name: "missing library", status: 125, prog: []string{needs}, opts: []lab.Option{lab.Share(filepath.Dir(needs))}, args: []string{"-x", "LD_LIBRARY_PATH=/tmp/onlyhere"}, do: func(b *bed) {
			for _, i := range []int{1, 3} {
				b.on(i, "mkdir /tmp/onlyhere && cp "+filepath.Dir(needs)+"/libneeded.so.3 /tmp/onlyhere/")
			}
		}, want: []string{"n2", "libneeded.so.3", "LD_LIBRARY_PATH"}},
		{name: "another MPI", status: 125, args: []string{"-x", "LD_LIBRARY_PATH=/tmp/m"}, do: func(b *bed) {
			b.on(2, `mkdir /tmp/m && lib=$(ldd `+prog+` | sed -n 's/.*=> \(.*libmpi[^ ]*\) .*/\1/p' | head -n 1) && cp "$lib" /tmp/m/libmpi-other.so.12.9.9 && ln -s libmpi-other.so.12.9.9 /tmp/m/$(basename "$lib")`)
		}, want: []string{"n2", "another version of its MPI than on n1", "libmpi-other.so.12.9.9"}},
		{name: "missing helper", status: 125, args: []string{"--launch", "mpirun"}, do: func(b *bed) { b.on(2, "mount --bind /dev/null /usr/bin/hydra_pmi_proxy") },
			want: []string{"n2", "hydra_pmi_proxy", "same MPI"}},
		{name: "long TMPDIR", args: []string{"--tmpdir", long}, do: func(b *bed) {
			for i := 0; i <= 3; i++ {
				b.on(i, "mkdir -p -m 1777 "+long)
			}
		}, want: []string{"TMPDIR has", "--tmpdir a short directory"}},
		{name: "full disk", status: 125, opts: []lab.Option{lab.SmallTmp(8<<20, 2)}, do: func(b *bed) { b.on(2, "head -c 7700000 /dev/zero > /tmp/filler") },
			want: []string{"n2", "is full", "--tmpdir"}},
		{name: "device", status: 125, args: []string{"-x", "UCX_NET_DEVICES=mlx5_7:1"}, want: []string{"UCX_NET_DEVICES names mlx5_7"}},
		{name: "off", args: []string{"--preflight=off"}, do: func(b *bed) {
			b.on(2, "head -c 1000000 /dev/zero > /dev/shm/vader_segment.n2.0.1.2; touch -d '1 hour ago' /dev/shm/vader_segment.n2.0.1.2")
		}, want: []string{"!preflight"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := hosts(t, 3, c.opts...)
			if c.do != nil {
				c.do(b)
			}
			command := c.prog
			if command == nil {
				command = []string{prog}
			}
			args := append([]string{"run", "--hosts", "n[1-3]", "--ppn", "2", "--oversubscribe", "--time", "30s", "--kill-grace", "100ms"}, c.args...)
			p := b.start(nil, nil, append(append(args, "--"), command...)...)
			out := p.out.wait(p)
			status := p.status()
			if status == exitTimeLimit && c.status == 0 {
				t.Log("hung in the MPI library")
				status = 0
			}
			if status != c.status {
				t.Errorf("status %d, want %d", status, c.status)
			}
			for _, w := range c.want {
				w, not := strings.CutPrefix(w, "!")
				if strings.Contains(p.err.String(), w) == not {
					t.Errorf("stderr: %q wanted: %v", w, !not)
				}
			}
			if c.name == "docker0" && !strings.Contains(out, "devices eth0 eth0") {
				t.Error("the ranks were not kept to eth0")
			}
			if t.Failed() {
				t.Logf("stdout:\n%s\nstderr:\n%s", out, p.err)
			}
			t.Logf("%s", p.err)
		})
	}
}

// needsLibrary builds a program that links libneeded.so.3, which lies beside it
// where no loader looks.
func needsLibrary(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"l.c": "int needed(void) { return 0; }\n", "p.c": "int needed(void);\nint main(void) { return needed(); }\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"-shared", "-fPIC", "-Wl,-soname,libneeded.so.3", "-o", dir + "/libneeded.so.3", dir + "/l.c"},
		{"-o", dir + "/prog", dir + "/p.c", dir + "/libneeded.so.3"},
	} {
		if out, err := exec.Command("cc", args...).CombinedOutput(); err != nil {
			t.Skipf("no C compiler: %v %s", err, out)
		}
	}
	return dir + "/prog"
}

// TestHostsPreflightFull measures, and names the host that is slow.
func TestHostsPreflightFull(t *testing.T) {
	b := hosts(t, 4)
	run := func() string {
		_, errs := b.want(0, "run", "--hosts", "n[1-4]", "--preflight=full", "--", "hostname")
		t.Log(errs)
		return errs
	}
	if errs := run(); !strings.Contains(errs, "6 pairs of nodes measured") || strings.Contains(errs, "a round trip takes") {
		t.Errorf("four equal hosts: %s", errs)
	}
	for _, c := range []struct{ qdisc, want string }{
		{"netem delay 10ms", "n3: a round trip takes"}, {"netem loss 20%", "preflight: n3: "}, {"tbf rate 100mbit burst 64kb latency 100ms", "MB/s, in the middle"},
	} {
		script := "tc qdisc replace dev eth0 root " + c.qdisc
		if out, err := b.lab.Host(3).Command(context.Background(), "sh", "-c", script).CombinedOutput(); err != nil {
			t.Logf("%s: %v: %s", script, err, out) // a kernel without it
			continue
		}
		if errs := run(); !strings.Contains(errs, c.want) {
			t.Errorf("n3 with %s: %s", c.qdisc, errs)
		}
	}
}
