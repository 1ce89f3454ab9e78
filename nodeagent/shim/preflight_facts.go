package shim

import (
	"context"
	"debug/elf"
	"encoding/hex"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"gangway/mpi"
	"gangway/mpi/preflight"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

const (
	// dialLimit lets two lost SYNs be sent again.
	dialLimit = 5 * time.Second
	// dialWidth is how many dials and look-ups are under way at once.
	dialWidth = 16
	// dialAll is the largest gang of which full dials every pair.
	dialAll = 64
	// staleAge keeps what is just being made out of what is stale.
	staleAge = time.Minute
	// manyTasks is a limit of processes that nobody runs into by MPI.
	manyTasks = 1 << 16
)

// gather finds out what this node says of itself before the gang is known. It
// runs beside the rest of preparing.
func (s *shim) gather(ctx context.Context, p *prepared) <-chan preflight.Facts {
	out := make(chan preflight.Facts, 1)
	// What is read of p must be there already.
	env, program, cpus := p.env, p.program, p.cpus
	s.wg.Go(func() { out <- s.localFacts(ctx, env, program, cpus) })
	return out
}

func (s *shim) localFacts(ctx context.Context, env []string, program string, cpus topology.CPUSet) preflight.Facts {
	a := s.a
	f := preflight.Facts{
		Node: s.nodeName(), Hostname: s.node.Hostname, Index: int(a.GetNodeIndex()), Ranks: int(a.GetNodeRanks()),
		Interface: a.GetInterface(), CoresPerRank: int(a.GetCoresPerRank()), Granted: cpus,
	}
	f.Address, _ = netip.ParseAddr(a.GetAddress()) // the zero address is not judged
	for _, i := range s.node.Interfaces {
		if i.Up && !i.Loopback {
			f.Interfaces = append(f.Interfaces, i)
		}
	}
	for _, h := range s.node.HCAs {
		h.Ports = slices.Clone(h.Ports)
		for k := range h.Ports {
			h.Ports[k].Counters, h.Ports[k].GIDs = nil, nil
		}
		f.HCAs = append(f.HCAs, h)
	}
	if !cpus.IsEmpty() {
		f.Cores = len(s.node.CoresWithin(cpus))
	}
	if set, err := proc.Affinity(os.Getpid()); err == nil {
		f.Affinity = set
	}
	l := proc.ReadLimits()
	f.Memlock, f.OpenFiles = l.Memlock, l.Files
	if l.Processes != nil && *l.Processes < manyTasks {
		if n, err := proc.UserTasks(); err == nil {
			f.Processes, f.Tasks = l.Processes, &n
		}
	}
	fail := func(err error) { f.Failed = append(f.Failed, err.Error()) }
	var err error
	if f.Shm, err = space("/dev/shm"); err != nil {
		fail(err)
	}
	tmp := getEnv(env, "TMPDIR")
	if tmp == "" {
		tmp = "/tmp"
	}
	if f.Tmp, err = space(tmp); err != nil {
		f.Tmp = &preflight.Space{Path: tmp, Denied: err.Error()}
	}
	if root := s.start.GetTaskRoot(); root != "" && s.kept() {
		if f.TaskRoot, err = space(s.start.GetTaskPath()); err != nil {
			fail(err)
		}
	}
	f.Stale = staleFiles("/dev/shm", "/tmp", time.Now())
	f.MPI, f.Missing = s.programLibraries(ctx, program, env)
	return f
}

// space looks at a directory and proves that a file can be made there.
func space(dir string) (*preflight.Space, error) {
	free, inodes, fixed, err := proc.FreeSpace(dir)
	if err != nil {
		return nil, err
	}
	out := &preflight.Space{Path: dir, Free: free, Inodes: inodes, NoIno: !fixed}
	file, err := os.CreateTemp(dir, "gangway-check-")
	if err != nil {
		if !isFull(err) { // else the numbers say it
			out.Denied = reason(err)
		}
		return out, nil
	}
	_ = file.Close()
	_ = os.Remove(file.Name())
	return out, nil
}

// programLibraries asks the program's loader for its libraries: the MPI among
// them, and those that it does not find. A program that needs nothing beyond
// the C library is not asked about: that costs a process.
func (s *shim) programLibraries(ctx context.Context, program string, env []string) (*preflight.Library, []string) {
	file, err := elf.Open(program)
	if err != nil {
		return nil, nil
	}
	defer file.Close()
	names, err := file.ImportedLibraries()
	interp := interpreter(file)
	if err != nil || interp == "" || !slices.ContainsFunc(names, func(n string) bool { return !basic.MatchString(n) }) {
		return nil, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	out, err := s.output(ctx, interp, []string{interp, "--list", program}, env)
	if err != nil {
		return nil, nil
	}
	var lib *preflight.Library
	var missing []string
	libs := parseLoaderList(out)
	for _, l := range libs {
		if l.Path == "" {
			missing = append(missing, l.Soname)
		}
	}
	// The loader of glibc stops at the first one that is missing.
	for _, m := range loaderError.FindAllStringSubmatch(out, -1) {
		if !slices.Contains(missing, m[1]) {
			missing = append(missing, m[1])
		}
	}
	if k, ok := mpi.Classify(libs); ok {
		lib = library(k)
	}
	return lib, missing
}

// "./prog: error while loading shared libraries: libx.so.1: cannot open shared
// object file: No such file or directory", musl: "Error loading shared library
// libx.so.1: No such file ...".
var loaderError = regexp.MustCompile(`(?m)(?:error while loading shared libraries: |Error loading shared library )([^:\s]+):.*No such file`)

func library(k mpi.Linkage) *preflight.Library {
	l := &preflight.Library{Soname: k.Library.Soname, Path: k.Library.Path, Flavour: k.Flavour}
	if l.Path == "" {
		return l
	}
	real, err := filepath.EvalSymlinks(l.Path)
	if err != nil {
		return l
	}
	l.File = filepath.Base(real)
	if fi, err := os.Stat(real); err == nil {
		l.Size = fi.Size()
	}
	f, err := elf.Open(real)
	if err != nil {
		return l
	}
	defer f.Close()
	if sec := f.Section(".note.gnu.build-id"); sec != nil && sec.Size < 1024 {
		// Name size, description size and type, 4 bytes each, "GNU\0", then the ID.
		if b, err := sec.Data(); err == nil && len(b) > 16 {
			l.Build = hex.EncodeToString(b[16:])
		}
	}
	return l
}

// staleKinds are the names that MPI libraries give to what they should have
// taken away themselves. session: a directory whose entries are named after
// the processes they belong to.
func staleKinds() []staleKind {
	return []staleKind{
		{"shm", "vader_segment.*", "Open MPI's shared memory", false},
		{"shm", "sm_segment.*", "Open MPI's shared memory", false},
		{"shm", "osc_*", "Open MPI's shared memory", false},
		{"shm", "psm2_shm.*", "PSM2's shared memory", false},
		{"shm", "psm_shm.*", "PSM's shared memory", false},
		{"shm", "mpich_shm*", "MPICH's shared memory", false},
		{"shm", "mpich_shar_tmp*", "MPICH's shared memory", false},
		{"shm", "ucx_shm_posix_*", "UCX's shared memory", false},
		{"shm", "Intel_MPI_*", "Intel MPI's shared memory", false},
		{"shm", "ib_shmem-*", "MVAPICH's shared memory", false},
		{"shm", "nccl-*", "NCCL's shared memory", false},
		{"tmp", "openmpi-sessions-*", "Open MPI's session directories", true},
		{"tmp", "ompi.*", "Open MPI's session directories", true},
		{"tmp", "prte.*", "PRRTE's session directories", true},
	}
}

type staleKind struct {
	where, glob, what string
	session           bool
}

// namesIn reads a directory once for all that is looked for in it; what can't be
// read has no names.
func namesIn(dir string) []string {
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1) // those up to an error
	slices.Sort(names)
	return names
}

// staleFiles looks for what dead processes of this user left. shm and tmp are
// the directories to look in.
func staleFiles(shm, tmp string, now time.Time) []preflight.Stale {
	uid := os.Geteuid()
	var found []preflight.Stale
	var paths [][]string
	var all []string
	inShm, inTmp := namesIn(shm), namesIn(tmp)
	for _, k := range staleKinds() {
		dir, names := shm, inShm
		if k.where == "tmp" {
			dir, names = tmp, inTmp
		}
		glob := filepath.Join(dir, k.glob)
		var mine []string
		for _, name := range names {
			if ok, err := filepath.Match(k.glob, name); err != nil || !ok {
				continue
			}
			m := filepath.Join(dir, name)
			fi, err := os.Lstat(m)
			if err != nil || now.Sub(fi.ModTime()) < staleAge {
				continue
			}
			if owner, _, ok := proc.FileOwner(fi); !ok || owner != uid {
				continue
			}
			if k.session && (!fi.IsDir() || sessionAlive(m)) {
				continue
			}
			mine = append(mine, m)
		}
		if len(mine) > 0 {
			found, paths, all = append(found, preflight.Stale{Kind: k.what, Glob: glob}), append(paths, mine), append(all, mine...)
		}
	}
	if len(all) == 0 {
		return nil
	}
	used, err := proc.Mapped(all)
	if err != nil {
		return nil // nothing is proven to be stale
	}
	var out []preflight.Stale
	for i, st := range found {
		largest := int64(-1)
		for _, path := range paths[i] {
			if used[path] {
				continue
			}
			n := sizeBelow(path)
			st.Count++
			st.Bytes += uint64(n)
			if n > largest {
				largest, st.Path = n, path
			}
		}
		if st.Count > 0 {
			out = append(out, st)
		}
	}
	return out
}

// sessionAlive says whether one of a session directory's entries, pid.N or N,
// is of a process that lives.
func sessionAlive(dir string) bool {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return true
	}
	for _, e := range entries {
		name := strings.TrimPrefix(e.Name(), "pid.")
		if _, err := strconv.ParseUint(name, 10, 32); err == nil {
			if _, err := os.Stat("/proc/" + name); err == nil {
				return true
			}
		}
	}
	return false
}

func sizeBelow(path string) int64 {
	var n int64
	// What vanishes meanwhile counts nothing.
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil
		}
		if fi, err := d.Info(); err == nil && fi.Mode().IsRegular() {
			n += fi.Size()
		}
		return nil
	})
	return n
}

// gangFacts are what a node can say only when it knows the others.
type gangFacts struct {
	names []preflight.Name
	dials []preflight.Dial
}

// reach resolves and dials the other members.
func (s *shim) reach(ctx context.Context, peers []*wire.Peer, full bool) <-chan gangFacts {
	out := make(chan gangFacts, 1)
	self := int(s.a.GetNodeIndex())
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(ctx, dialLimit)
		defer cancel()
		var g gangFacts
		byIndex := map[int]*wire.Peer{}
		for _, p := range peers {
			byIndex[int(p.GetIndex())] = p
		}
		to := preflight.Partners(self, len(peers))
		if full && len(peers) <= dialAll {
			to = to[:0]
			for i := range len(peers) {
				if i != self {
					to = append(to, i)
				}
			}
		}
		slots := make(chan struct{}, dialWidth)
		var wg sync.WaitGroup
		each := func(f func()) {
			wg.Go(func() {
				slots <- struct{}{}
				defer func() { <-slots }()
				f()
			})
		}
		g.dials = make([]preflight.Dial, len(to))
		for i, k := range to {
			each(func() { g.dials[i] = dialPeer(ctx, k, byIndex[k]) })
		}
		if full || needNames(peers) {
			names := []int{self}
			if len(peers) > 1 {
				names = append(names, to...)
			}
			g.names = make([]preflight.Name, len(names))
			for i, k := range names {
				each(func() { g.names[i] = resolve(ctx, byIndex[k].GetHostname()) })
			}
		}
		wg.Wait()
		out <- g
	})
	return out
}

// dialPeer connects to a member's port of the mesh and goes away again without
// a word, which the mesh takes for a stranger. TLS on top would prove no more
// about the network and cost a hundred times as much.
func dialPeer(ctx context.Context, index int, p *wire.Peer) preflight.Dial {
	addr := net.JoinHostPort(p.GetAddress(), strconv.Itoa(int(p.GetPort())))
	d := preflight.Dial{To: index, Addr: addr}
	start := time.Now()
	c, err := (&net.Dialer{KeepAlive: -1}).DialContext(ctx, "tcp", addr)
	d.Took = time.Since(start)
	if err != nil {
		d.Err = reason(err)
		return d
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0) // no TIME_WAIT for each of them
	}
	_ = c.Close()
	return d
}

func resolve(ctx context.Context, name string) preflight.Name {
	n := preflight.Name{Name: name}
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", name)
	if err != nil {
		n.Err = reason(err)
		return n
	}
	for _, a := range addrs {
		n.Addrs = append(n.Addrs, a.Unmap())
	}
	return n
}

// needNames says whether the launchers are given names in place of addresses,
// see plan.
func needNames(peers []*wire.Peer) bool {
	return slices.ContainsFunc(peers, func(p *wire.Peer) bool {
		a, err := netip.ParseAddr(p.GetAddress())
		return err != nil || !a.Is4()
	})
}
