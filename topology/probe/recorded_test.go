package probe

import (
	"archive/tar"
	"compress/bzip2"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gangway/topology"
)

const recordings = "../../../shared/data/sysfs"

// openRecording unpacks a recorded machine; it skips the test where the
// recordings are absent.
func openRecording(t testing.TB, name string) Source {
	t.Helper()
	f, err := os.Open(filepath.Join(recordings, name+".tar.bz2"))
	if errors.Is(err, fs.ErrNotExist) {
		t.Skip("no recorded machines at ../shared/data/sysfs")
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	root, sys, proc := fstest.MapFS{}, fstest.MapFS{}, fstest.MapFS{}
	for tr := tar.NewReader(bzip2.NewReader(f)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		_, path, _ := strings.Cut(strings.Trim(h.Name, "/"), "/") // below the machine's folder
		if path == "" || path == "sys" || path == "proc" {
			continue
		}
		file := &fstest.MapFile{Mode: h.FileInfo().Mode()}
		switch h.Typeflag {
		case tar.TypeSymlink:
			file.Data = []byte(h.Linkname)
		case tar.TypeReg:
			if file.Data, err = io.ReadAll(tr); err != nil {
				t.Fatal(err)
			}
		}
		root[path] = file
		if rest, ok := strings.CutPrefix(path, "sys/"); ok {
			sys[rest] = file
		}
		if rest, ok := strings.CutPrefix(path, "proc/"); ok {
			proc[rest] = file
		}
	}
	return Source{Sys: sys, Proc: proc, Root: root}
}

func TestRecorded(t *testing.T) {
	for _, test := range []struct {
		name                        string
		packages, numa, cores, pus  int
		allowed, mems               string
		usable, interfaces, drivers int
	}{
		{name: "16amd64-8n2c-cpusets", packages: 8, numa: 8, cores: 15, pus: 15, allowed: "0-3,5-6,12-15", mems: "1-4", usable: 10},
		{name: "16em64t-4s2c2t-offlines", packages: 4, numa: 1, cores: 7, pus: 12, allowed: "0-1,3-4,6-12,15", mems: "0", usable: 7},
		{name: "32amd64-4s2n4c-cgroup2", packages: 4, numa: 8, cores: 32, pus: 32, allowed: "0-5", mems: "0-5", usable: 6},
		{name: "32em64t-2n8c+dax+nvme+mic+dimms", packages: 2, numa: 2, cores: 16, pus: 16, allowed: "0-15", mems: "0-1", usable: 16, interfaces: 3, drivers: 3},
		{name: "40intel64-2g2n4c+pcilocality", packages: 4, numa: 4, cores: 40, pus: 40, allowed: "0-39", mems: "0-3", usable: 40, interfaces: 5, drivers: 5},
		{name: "nvidia-dgx-gb10", packages: 1, numa: 1, cores: 20, pus: 20, allowed: "0-19", mems: "0", usable: 20},
		{name: "nvidiagpunumanodes", packages: 2, numa: 8, cores: 8, pus: 32, allowed: "0-15,88-103", mems: "0,8,250-255", usable: 8},
	} {
		t.Run(test.name, func(t *testing.T) {
			n, err := Node(openRecording(t, test.name))
			if err != nil {
				t.Fatal(err)
			}
			drivers := 0
			for _, i := range n.Interfaces {
				if i.Driver != "" && !i.Virtual {
					drivers++
				}
			}
			type facts struct {
				Packages, NUMA, Cores, PUs  int
				Allowed, Mems               string
				Usable, Interfaces, Drivers int
			}
			want := facts{test.packages, test.numa, test.cores, test.pus, test.allowed, test.mems,
				test.usable, test.interfaces, test.drivers}
			got := facts{len(n.Packages), len(n.NUMA), len(n.Cores), n.Online.Count(), n.Allowed.String(), n.AllowedMems.String(),
				len(n.Usable()), len(n.Interfaces), drivers}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
			if len(n.Warnings) > 0 {
				t.Errorf("warnings: %q", n.Warnings)
			}
			console, err := os.ReadFile(filepath.Join(recordings, test.name+".console"))
			if err == nil {
				compareConsole(t, n, string(console))
			}
			checkNode(t, n)
		})
	}
}

// checkNode holds what must be true of every probed machine.
func checkNode(t testing.TB, n topology.Node) {
	t.Helper()
	var all topology.CPUSet
	for _, c := range n.Cores {
		if c.PUs.IsEmpty() || all.Overlaps(c.PUs) {
			t.Errorf("core %+v is empty or shares PUs with another", c)
		}
		all = all.Union(c.PUs)
	}
	if !all.Equal(n.Online) {
		t.Errorf("cores hold PUs %s, online are %s", all, n.Online)
	}
	if n.Allowed.IsEmpty() || !n.Online.Contains(n.Allowed) {
		t.Errorf("allowed %s of online %s", n.Allowed, n.Online)
	}
}
