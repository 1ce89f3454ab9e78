package probe

import (
	"archive/tar"
	"compress/gzip"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"

	"gangway/topology"
)

// manifestName is in a record's folder, beside sys and proc.
const manifestName = "gangway-node.json"

const (
	manifestFormat  = "gangway-node"
	manifestVersion = 1
)

// manifest is what a record says that no file of the machine does.
type manifest struct {
	Format   string  `json:"format"`
	Version  int     `json:"version"`
	Arch     string  `json:"arch,omitempty"`
	ShmBytes *uint64 `json:"shm_bytes,omitempty"`
	// Unreadable are the files that could not be read, and why.
	Unreadable map[string]string `json:"unreadable,omitempty"`
}

// RecordFrom probes a machine and writes what was read as a record that From
// reads, a tar of files compressed by gzip (docs/machine-records.md). What
// identifies the machine, its devices or its users is left out or replaced:
// the node that is read back is the same but for host name, boot, addresses
// and identifiers. Functions in also read more of the machine through the
// source that they are given; /proc's files are kept only if known here.
func RecordFrom(w io.Writer, src Source, also ...func(Source)) error {
	out, scrub := newMemFS(), newScrubber()
	unreadable := map[string]string{}
	wrap := func(fsys fs.FS, mount string) fs.FS {
		rl, ok := fsys.(fs.ReadLinkFS)
		if !ok {
			return fsys
		}
		return &recorder{src: rl, out: out, mount: mount, scrub: scrub, unreadable: unreadable, links: map[string]string{}}
	}
	// Interfaces as sysfs tells them: their addresses are nobody's concern.
	src.Sys, src.Proc, src.Interfaces = wrap(src.Sys, "sys"), wrap(src.Proc, "proc"), nil
	n, err := Node(src)
	if err != nil {
		return fmt.Errorf("record of the machine: %w", err)
	}
	for _, f := range also {
		f(src)
	}
	recordLimits(out, n)
	m, err := json.MarshalIndent(manifest{
		Format: manifestFormat, Version: manifestVersion, Arch: src.Arch, ShmBytes: src.ShmBytes, Unreadable: unreadable,
	}, "", "  ")
	if err != nil {
		return err
	}
	out.addFile(manifestName, append(m, '\n'))
	return writeTar(w, out)
}

// recordLimits stands in for the cgroups, whose names tell of users and jobs:
// one cgroup with what holds for the process.
func recordLimits(out *memFS, n topology.Node) {
	const dir = "sys/fs/cgroup/"
	out.addFile("proc/self/cgroup", []byte("0::/\n"))
	out.addFile("proc/self/mountinfo", []byte("1 0 0:1 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n"))
	out.addFile(dir+"cpuset.cpus.effective", []byte(n.Allowed.String()+"\n"))
	out.addFile(dir+"cpuset.mems.effective", []byte(n.AllowedMems.String()+"\n"))
	if n.Memory.Limit != nil {
		out.addFile(dir+"memory.max", []byte(strconv.FormatUint(*n.Memory.Limit, 10)+"\n"))
	}
}

// writeTar writes a tree, the same bytes for the same tree.
func writeTar(w io.Writer, m *memFS) error {
	zw := gzip.NewWriter(w)
	tw := tar.NewWriter(zw)
	var walk func(n *memNode, name string) error
	walk = func(n *memNode, name string) error {
		h := &tar.Header{Name: name, Mode: 0o644, Size: int64(len(n.data)), Typeflag: tar.TypeReg}
		switch {
		case n.mode.IsDir():
			h.Name, h.Mode, h.Typeflag = name+"/", 0o755, tar.TypeDir
		case n.mode&fs.ModeSymlink != 0:
			h.Mode, h.Typeflag, h.Linkname = 0o777, tar.TypeSymlink, n.target
		}
		if err := tw.WriteHeader(h); err != nil {
			return err
		}
		if _, err := tw.Write(n.data); err != nil {
			return err
		}
		names := make([]string, 0, len(n.kids))
		for k := range n.kids {
			names = append(names, k)
		}
		slices.Sort(names)
		for _, k := range names {
			if err := walk(n.kids[k], path.Join(name, k)); err != nil {
				return err
			}
		}
		return nil
	}
	if err := walk(m.root, manifestFormat); err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	if err := tw.Close(); err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	if err := zw.Close(); err != nil {
		return fmt.Errorf("writing the record: %w", err)
	}
	return nil
}

// readManifest reads it where there is one; warning says what is wrong with it.
func readManifest(base fs.FS) (m manifest, warning string) {
	b, err := fs.ReadFile(base, manifestName)
	if err != nil {
		return m, "" // a tree that others recorded
	}
	if err := json.Unmarshal(b, &m); err != nil {
		return manifest{}, fmt.Sprintf("%s: %v", manifestName, err)
	}
	if m.Version > manifestVersion {
		return m, fmt.Sprintf("%s: version %d, of which only what version %d has is read", manifestName, m.Version, manifestVersion)
	}
	return m, ""
}
