package probe

import (
	"archive/tar"
	"compress/bzip2"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"

	"gangway/internal/golden"
	"gangway/topology"
)

// adapters reads only the adapters: text archives hold nothing else.
func adapters(sys fs.FS) topology.Node {
	r := &reader{sys: sys}
	n := topology.Node{Online: topology.NewCPUSet(cpuRange(1024)...)}
	r.hcas(&n)
	n.Warnings = r.warnings
	return n
}

func cpuRange(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

// TestGoldenInfiniBand compares every recorded adapter with a reading of the
// same files in another way, and with lstopo's where it can read the recording.
func TestGoldenInfiniBand(t *testing.T) {
	dir := golden.Dir(t, "sysfs")
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		file := filepath.Join(dir, e.Name())
		switch {
		case strings.HasSuffix(file, ".ttar"):
			t.Run(e.Name(), func(t *testing.T) { goldenText(t, file) })
		case strings.HasSuffix(file, ".tar.bz2"):
			t.Run(e.Name(), func(t *testing.T) { goldenDump(t, file) })
		}
	}
}

func goldenText(t *testing.T, file string) {
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	fsys, warnings, err := ReadTTAR(f)
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	sys := ""
	err = fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err == nil && sys == "" && strings.HasSuffix("/"+p, "/sys/"+ibDir) {
			sys = strings.TrimSuffix(p, ibDir)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if sys == "" {
		t.Skip("no adapters in the archive")
	}
	sub, err := fs.Sub(fsys, path.Clean(sys))
	if err != nil {
		t.Fatal(err)
	}
	raw, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	compareAdapters(t, textFiles(string(raw)), adapters(sub))
}

// textFiles reads a text archive by pattern: files of adapters by their path
// below class/infiniband.
func textFiles(s string) map[string]string {
	out := map[string]string{}
	for _, m := range regexp.MustCompile(`(?m)^Path: \S*/class/infiniband/(\S+)\nLines: (\d+)\n`).FindAllStringSubmatchIndex(s, -1) {
		count, _ := strconv.Atoi(s[m[4]:m[5]])
		lines := strings.SplitN(s[m[1]:], "\n", count+1)[:count]
		out[s[m[2]:m[3]]] = strings.TrimSuffix(strings.TrimSpace(strings.Join(lines, "\n")), "EOF")
	}
	return out
}

func goldenDump(t *testing.T, file string) {
	root := t.TempDir()
	sys := unpackAt(t, file, root)
	if _, err := fs.Stat(sys, ibDir); errors.Is(err, fs.ErrNotExist) {
		t.Skip("no adapters in the recording")
	}
	n := adapters(sys)
	tops, err := os.ReadDir(root)
	if err != nil || len(tops) != 1 {
		t.Fatalf("expected one folder in the recording, found %v, %v", tops, err)
	}
	top := filepath.Join(root, tops[0].Name())
	files := map[string]string{}
	links, err := filepath.Glob(filepath.Join(top, "sys", ibDir, "*"))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		// The kernel's links are followed by the operating system here.
		real, err := filepath.EvalSymlinks(l)
		if err != nil || strings.HasPrefix(filepath.Base(l), "scif") {
			continue
		}
		err = filepath.WalkDir(real, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.Type().IsRegular() {
				b, err := os.ReadFile(p)
				rel, rerr := filepath.Rel(real, p)
				files[filepath.Base(l)+"/"+filepath.ToSlash(rel)] = strings.TrimSpace(string(b))
				return errors.Join(err, rerr)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	compareAdapters(t, files, n)
	compareLstopo(t, top, n)
}

// unpackAt writes a recording below root, and returns its /sys from memory.
func unpackAt(t *testing.T, file, root string) fs.FS {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sys := fstest.MapFS{}
	for tr := tar.NewReader(bzip2.NewReader(f)); ; {
		h, err := tr.Next()
		if err == io.EOF {
			return sys
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Clean("/" + h.Name)[1:]
		at := filepath.Join(root, filepath.FromSlash(name))
		file := &fstest.MapFile{Mode: h.FileInfo().Mode()}
		err = os.MkdirAll(filepath.Dir(at), 0o755)
		switch h.Typeflag {
		case tar.TypeDir:
			err = errors.Join(err, os.MkdirAll(at, 0o755))
		case tar.TypeSymlink:
			file.Data = []byte(h.Linkname)
			err = errors.Join(err, os.Symlink(h.Linkname, at))
		case tar.TypeReg:
			file.Data, err = io.ReadAll(tr)
			err = errors.Join(err, os.WriteFile(at, file.Data, 0o644))
		}
		if err != nil {
			t.Fatal(err)
		}
		if _, rest, ok := strings.Cut(name, "/sys/"); ok {
			sys[rest] = file
		}
	}
}

// compareAdapters states each fact from the files' text, by pattern.
func compareAdapters(t *testing.T, files map[string]string, n topology.Node) {
	t.Helper()
	got, want := map[string]string{}, map[string]string{}
	for _, h := range n.HCAs {
		for k, v := range map[string]string{"type": h.Type, "board": h.Board, "firmware": h.Firmware, "guid": h.NodeGUID} {
			got[h.Name+" "+k] = v
		}
		for _, p := range h.Ports {
			at := fmt.Sprintf("%s/%d ", h.Name, p.Number)
			for k, v := range map[string]string{"state": p.State, "phys": p.PhysState, "layer": p.LinkLayer, "rate": p.Rate, "gids": strings.Join(p.GIDs, " ")} {
				got[at+k] = v
			}
			if p.Gbps != nil {
				got[at+"gbps"] = fmt.Sprint(*p.Gbps)
			}
			if p.LID != nil {
				got[at+"lid"] = fmt.Sprintf("%#x", *p.LID)
			}
			if p.SMLID != nil {
				got[at+"sm"] = fmt.Sprintf("%#x", *p.SMLID)
			}
			for k, v := range p.Counters {
				got[at+k] = fmt.Sprint(v)
			}
		}
	}
	word := regexp.MustCompile(`^\d+: *(.*)$`)
	rate := regexp.MustCompile(`^([\d.]+) Gb/sec`)
	port := regexp.MustCompile(`^([^/]+)/ports/(\d+)/(.+)$`)
	gids := map[string]map[int]string{}
	for _, f := range slices.Sorted(maps.Keys(files)) {
		v := files[f]
		name, rest, _ := strings.Cut(f, "/")
		switch rest {
		case "hca_type":
			want[name+" type"] = v
		case "board_id":
			want[name+" board"] = v
		case "fw_ver":
			want[name+" firmware"] = v
		case "node_guid":
			if v = strings.ReplaceAll(v, ":", ""); strings.Trim(v, "0") != "" {
				want[name+" guid"] = strings.ToLower(v)
			}
		}
		m := port.FindStringSubmatch(f)
		if m == nil {
			continue
		}
		at := m[1] + "/" + m[2] + " "
		dir, leaf := path.Split(m[3])
		switch {
		case m[3] == "state" && word.MatchString(v):
			want[at+"state"] = word.FindStringSubmatch(v)[1]
		case m[3] == "phys_state" && word.MatchString(v) && !strings.Contains(v, "<"):
			want[at+"phys"] = word.FindStringSubmatch(v)[1]
		case m[3] == "link_layer" && (v == "InfiniBand" || v == "Ethernet"):
			want[at+"layer"] = v
		case m[3] == "rate":
			if r := rate.FindStringSubmatch(v); r != nil && strings.Trim(r[1], "0.") != "" {
				f, _ := strconv.ParseFloat(r[1], 64)
				want[at+"rate"], want[at+"gbps"] = v, fmt.Sprint(f)
			}
		case m[3] == "lid":
			want[at+"lid"] = v
		case m[3] == "sm_lid":
			want[at+"sm"] = v
		case dir == "counters/" || dir == "hw_counters/":
			if _, ok := want[at+leaf]; !ok && regexp.MustCompile(`^\d+$`).MatchString(v) && leaf != "lifespan" {
				want[at+leaf] = v
			}
		case dir == "gids/" && !strings.HasSuffix(v, ":0000:0000:0000:0000"):
			if gids[at] == nil {
				gids[at] = map[int]string{}
			}
			i, _ := strconv.Atoi(leaf)
			gids[at][i] = strings.ToLower(v)
		}
	}
	for at, table := range gids {
		var list []string
		for _, i := range slices.Sorted(maps.Keys(table)) {
			if !slices.Contains(list, table[i]) {
				list = append(list, table[i])
			}
		}
		want[at+"gids"] = strings.Join(list, " ")
	}
	for _, m := range []map[string]string{got, want} {
		maps.DeleteFunc(m, func(_, v string) bool { return v == "" })
	}
	if len(want) == 0 {
		t.Log("no adapter in the recording says anything")
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("from the files (-) and probed (+):\n%s\nwarnings: %v", d, n.Warnings)
	}
}

// lsObject is an object of lstopo's XML.
type lsObject struct {
	Type  string `xml:"type,attr"`
	Name  string `xml:"name,attr"`
	OSDev string `xml:"osdev_type,attr"`
	BusID string `xml:"pci_busid,attr"`
	Infos []struct {
		Name  string `xml:"name,attr"`
		Value string `xml:"value,attr"`
	} `xml:"info"`
	Children []lsObject `xml:"object"`
}

func compareLstopo(t *testing.T, top string, n topology.Node) {
	t.Helper()
	tool, err := exec.LookPath("lstopo-no-graphics")
	if err != nil {
		t.Log("no lstopo-no-graphics on the PATH: not compared with it")
		return
	}
	b, err := exec.Command(tool, "-i", top, "--filter", "io:all", "--of", "xml").Output()
	if err != nil {
		t.Logf("lstopo can't read the recording: %v", err)
		return
	}
	var doc struct {
		Objects []lsObject `xml:"object"`
	}
	if err := xml.Unmarshal(b, &doc); err != nil {
		t.Fatal(err)
	}
	got, want := map[string]string{}, map[string]string{}
	var walk func(o lsObject, pci string)
	walk = func(o lsObject, pci string) {
		if o.BusID != "" {
			pci = o.BusID
		}
		if o.Type == "OSDev" && o.OSDev == "3" {
			want[o.Name+" pci"] = pci
			for _, i := range o.Infos {
				want[o.Name+" "+i.Name] = i.Value
			}
		}
		for _, c := range o.Children {
			walk(c, pci)
		}
	}
	for _, o := range doc.Objects {
		walk(o, "")
	}
	// lstopo says the state's number, the probe its word.
	states := map[string]string{"DOWN": "1", "INIT": "2", "ARMED": "3", "ACTIVE": "4", "ACTIVE_DEFER": "5"}
	for _, h := range n.HCAs {
		got[h.Name+" pci"] = h.PCI
		if h.NodeGUID != "" {
			got[h.Name+" NodeGUID"] = h.NodeGUID[:4] + ":" + h.NodeGUID[4:8] + ":" + h.NodeGUID[8:12] + ":" + h.NodeGUID[12:]
		}
		for _, p := range h.Ports {
			at := fmt.Sprintf("%s Port%d", h.Name, p.Number)
			got[at+"State"] = states[p.State]
			if p.LID != nil {
				got[at+"LID"] = fmt.Sprintf("%#x", *p.LID)
			}
			for i, g := range p.GIDs {
				got[fmt.Sprintf("%sGID%d", at, i)] = g
			}
		}
	}
	other := regexp.MustCompile(`SysImageGUID|LMC$`)
	index := regexp.MustCompile(`GID\d+$`)
	compact := func(m map[string]string) map[string][]string {
		out := map[string][]string{}
		for _, k := range slices.Sorted(maps.Keys(m)) {
			if v := m[k]; v != "" && !other.MatchString(k) {
				k = index.ReplaceAllString(k, "GIDs")
				out[k] = append(out[k], v)
				slices.Sort(out[k])
				out[k] = slices.Compact(out[k])
			}
		}
		return out
	}
	if d := cmp.Diff(compact(want), compact(got)); d != "" {
		t.Errorf("lstopo (-) and probe (+):\n%s", d)
	}
}
