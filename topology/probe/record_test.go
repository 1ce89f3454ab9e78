package probe

import (
	"bytes"
	"compress/gzip"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"gangway/topology"
)

// personal is a machine with all that must not get into a record.
func personal() (sys, proc map[string]string) {
	sys, proc = fourCPUs()
	proc["sys/kernel/hostname"] = "SECRET-host"
	proc["sys/kernel/random/boot_id"] = "11111111-2222-3333-4444-SECRET"
	delete(proc, "sys/kernel/osrelease")
	proc["version"] = "Linux version 6.1.0 (SECRET@SECRET-host) (gcc 12) #1 SMP"
	proc["self/status"] += "\nUid:\tSECRET"
	proc["self/cgroup"] = "0::/user.slice/user-SECRET.slice"
	proc["cmdline"] = "root=UUID=SECRET"
	sys["fs/cgroup/user.slice/user-SECRET.slice/memory.max"] = "123456789"
	sys["fs/cgroup/user.slice/cpuset.cpus.effective"] = "0,2"
	const dir = "devices/LNXSYSTM:00/VMBUS:01/000d3a11-dead-beef-0102-000d3a11dead/pci0001:00/0001:00:02.0/"
	sys["bus/pci/devices/0001:00:02.0"] = "-> ../../../" + strings.TrimSuffix(dir, "/")
	for name, text := range map[string]string{
		"class": "0x020700", "vendor": "0x15b3", "device": "0x1021", "numa_node": "0", "local_cpulist": "0-3",
		"current_link_speed": "32.0 GT/s PCIe", "current_link_width": "16", "driver": "-> ../../../../../../bus/pci/drivers/mlx5_core",
		"net/ib0/ifindex": "5", "net/ib0/flags": "0x1003", "net/ib0/operstate": "up", "net/ib0/mtu": "2044", "net/ib0/type": "32",
		"net/ib0/address": "80:00:00:03:fe:80:00:00:00:00:00:00:00:11:75:00:00:77:cf:c8", "net/ib0/device": "-> ../..",
		"net/enx00e04c680001/ifindex": "6", "net/enx00e04c680001/flags": "0x1003", "net/enx00e04c680001/operstate": "down",
		"infiniband/mlx5_0/node_guid":      "506b:4b03:dead:beef",
		"infiniband/mlx5_0/sys_image_guid": "506b:4b03:dead:beef",
		"infiniband/mlx5_0/fw_ver":         "16.35.10.12",
		"infiniband/mlx5_0/node_desc":      "SECRET-host mlx5_0",
		"infiniband/mlx5_0/ports/1/gids/0": "fe80:0000:0000:0000:506b:4b03:dead:beef",
		"infiniband/mlx5_0/ports/1/gids/1": "0000:0000:0000:0000:0000:ffff:0a0b:0c0d",
		"infiniband/mlx5_0/ports/1/gids/2": "0000:0000:0000:0000:0000:0000:0000:0000",
	} {
		sys[dir+name] = text
	}
	for class, names := range map[string][]string{"net": {"ib0", "enx00e04c680001"}, "infiniband": {"mlx5_0"}} {
		for _, name := range names {
			sys["class/"+class+"/"+name] = "-> ../../" + dir + class + "/" + name
		}
	}
	return sys, proc
}

// TestRecord: a record read back is the machine but for what identifies it,
// and nothing of that is in it.
func TestRecord(t *testing.T) {
	sys, proc := personal()
	src := Source{Sys: tree(sys), Proc: tree(proc), Arch: "arm64", ShmBytes: new(uint64(1 << 30))}
	want, err := Node(src)
	if err != nil {
		t.Fatal(err)
	}
	if len(want.PCI) != 1 || !cmp.Equal(want.PCI[0].Names, []string{"mlx5_0", "enx00e04c680001", "ib0"}) {
		t.Fatalf("devices: %+v", want.PCI)
	}
	var record bytes.Buffer
	err = RecordFrom(&record, src, func(s Source) { walk(t, subFS(s.Sys, "class/infiniband/mlx5_0")) })
	if err != nil {
		t.Fatal(err)
	}
	text := unzip(t, record.Bytes())
	for _, secret := range []string{"SECRET", "dead", "000d3a", "00e04c", "0a0b:0c0d", "80:00:00:03"} {
		if k := strings.Index(strings.ToLower(text), strings.ToLower(secret)); k >= 0 {
			t.Errorf("%q is in the record: %q", secret, text[max(0, k-200):min(len(text), k+100)])
		}
	}
	for _, kept := range []string{"16.35.10.12", "fe80:0000:0000:0000:0200:0000:0000:", "0000:ffff:c000:02", zeroGUID + ":" + zeroGUID} {
		if !strings.Contains(text, kept) {
			t.Errorf("%q is not in the record", kept)
		}
	}
	got, err := Read(&record)
	if err != nil {
		t.Fatal(err)
	}
	want.Hostname, want.BootID = "", ""
	const made = "enx020000000"
	rename := func(name string) string {
		if strings.HasPrefix(name, "enx") {
			return made
		}
		return name
	}
	for _, n := range []*topology.Node{&want, &got} {
		for k := range n.Interfaces {
			n.Interfaces[k].Name = rename(n.Interfaces[k].Name)
		}
		for k := range n.PCI[0].Names {
			n.PCI[0].Names[k] = rename(n.PCI[0].Names[k])
		}
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(topology.HCA{}, "NodeGUID"),
		cmpopts.IgnoreFields(topology.HCAPort{}, "GIDs")); diff != "" {
		t.Errorf("(-machine +record):\n%s", diff)
	}
}

// tree is a file system in memory as files is, with links that lead anywhere.
func tree(list map[string]string) *memFS {
	m := newMemFS()
	for name, text := range list {
		if target, ok := strings.CutPrefix(text, "-> "); ok {
			m.addLink(name, target)
		} else {
			m.addFile(name, []byte(text+"\n"))
		}
	}
	return m
}

func unzip(t testing.TB, b []byte) string {
	t.Helper()
	zr, err := gzip.NewReader(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	text, err := io.ReadAll(zr)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestRecordLive records this machine.
func TestRecordLive(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("machines are recorded on Linux only")
	}
	var record bytes.Buffer
	if err := Record(&record); err != nil {
		t.Fatal(err)
	}
	text := unzip(t, record.Bytes())
	host, _ := os.Hostname()
	for _, file := range []string{"/proc/sys/kernel/random/boot_id", "/etc/machine-id"} {
		b, err := os.ReadFile(file)
		if id := strings.TrimSpace(string(b)); err == nil && id != "" && strings.Contains(text, id) {
			t.Errorf("%s is in the record", file)
		}
	}
	if len(host) > 4 && strings.Contains(text, host) {
		t.Errorf("the host's name %s is in the record", host)
	}
	file := filepath.Join(t.TempDir(), "record")
	if err := os.WriteFile(file, record.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := From(file)
	if err != nil {
		t.Fatal(err)
	}
	want, err := Live()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(topology.Node{}, "Hostname", "BootID", "ShmBytes"),
		cmpopts.IgnoreFields(topology.Interface{}, "Addrs", "Up"),
		cmpopts.IgnoreFields(topology.HCA{}, "NodeGUID"), cmpopts.IgnoreFields(topology.HCAPort{}, "GIDs", "Counters"),
		cmpopts.IgnoreFields(topology.Memory{}, "Available")); diff != "" {
		t.Errorf("(-machine +record):\n%s", diff)
	}
	t.Logf("%d bytes", record.Len())
}

// TestRead tells what a record is by its content.
func TestRead(t *testing.T) {
	ttar := "Path: fixtures/sys/devices/system/cpu/online\nLines: 1\n0-1\nMode: 644\n"
	gz := func(s string) string {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = io.WriteString(w, s)
		_ = w.Close()
		return b.String()
	}
	for _, test := range []struct {
		name, in  string
		cpus      int
		err, warn string
	}{
		{name: "text archive", in: ttar, cpus: 2, warn: "no core topology"},
		{name: "compressed", in: gz(ttar), cpus: 2, warn: "no core topology"},
		{name: "cut short", in: gz(ttar)[:60], err: "sys or proc"},
		{name: "node's JSON", in: `{"hostname":"n1","online":"0-3","cores":[{"pus":"0-3"}]}`, cpus: 4},
		{name: "other JSON", in: `{"a":1}`, err: "no cpus"},
		{name: "empty", err: "it is empty"},
		{name: "other", in: "what is this", err: "neither a record"},
		{name: "no machine in it", in: "Path: a/b/c/d\nLines: 0\n", err: "there is no folder sys or proc in it"},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := Read(strings.NewReader(test.in))
			switch {
			case test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)):
				t.Errorf("error %v, want %q", err, test.err)
			case test.err == "" && err != nil:
				t.Error(err)
			case n.Online.Count() != test.cpus || !strings.Contains(strings.Join(n.Warnings, "\n"), test.warn):
				t.Errorf("cpus %s, warnings %q", n.Online, n.Warnings)
			}
		})
	}
	if _, err := From(filepath.Join(t.TempDir(), "absent")); err == nil || !strings.Contains(err.Error(), "absent") {
		t.Errorf("an absent file: %v", err)
	}
}

// FuzzRecord feeds records of every kind.
func FuzzRecord(f *testing.F) {
	sys, proc := personal()
	var record bytes.Buffer
	if err := RecordFrom(&record, Source{Sys: tree(sys), Proc: tree(proc)}); err != nil {
		f.Fatal(err)
	}
	f.Add(record.Bytes())
	f.Add([]byte(unzip(f, record.Bytes())))
	f.Add([]byte(ttarExample))
	f.Add([]byte(`{"online":"0-3","cores":[{"pus":"0-3"}]}`))
	f.Add([]byte("pack:2 core:16 pu:2"))
	f.Add([]byte(`<?xml version="1.0"?><topology version="2.0"/>`))
	f.Add([]byte("BZh9"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if bytes.HasPrefix(b, []byte("\xfd7zXZ")) {
			t.Skip("another program unpacks it")
		}
		n, err := Read(bytes.NewReader(b))
		if err == nil && n.Online.IsEmpty() && len(n.HCAs) == 0 {
			t.Errorf("no cpus and no error: %+v", n)
		}
	})
}
