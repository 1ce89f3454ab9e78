package preflight

import (
	"fmt"
	"slices"
	"strings"

	"gangway/mpi"
	"gangway/topology"
)

// Check judges a gang. Findings come errors first, otherwise in the order of
// Checks; those that say the same of several nodes are one.
func Check(gang []Facts, plan Plan) []Finding {
	gang = slices.Clone(gang)
	slices.SortFunc(gang, func(a, b Facts) int { return a.Index - b.Index })
	c := &checker{gang: gang, plan: plan}
	for _, n := range gang {
		c.node(n)
	}
	if len(gang) > 1 {
		c.network()
		c.fabric()
	}
	c.libraries()
	c.clocks()
	if len(plan.Silent) > 0 {
		c.found = append(c.found, Finding{Level: Warning, Check: "answer", Nodes: plan.Silent,
			Message: "did not say in time how things are there: it was not checked", Hint: "look whether a file system hangs there"})
	}
	return fold(c.found)
}

type checker struct {
	gang  []Facts
	plan  Plan
	found []Finding
}

func (c *checker) add(l Level, check, node, hint, format string, args ...any) {
	c.found = append(c.found, Finding{Level: l, Check: check, Nodes: []string{node}, Message: fmt.Sprintf(format, args...), Hint: hint})
}

// fold joins the findings of several nodes and puts errors first.
func fold(in []Finding) []Finding {
	var out []Finding
	at := map[string]int{}
	for _, f := range in {
		key := strings.Join([]string{string(f.Level), f.Check, f.Message, f.Hint}, "\x00")
		i, ok := at[key]
		if !ok {
			at[key] = len(out)
			out = append(out, f)
			continue
		}
		for _, n := range f.Nodes {
			if !slices.Contains(out[i].Nodes, n) {
				out[i].Nodes = append(slices.Clip(out[i].Nodes), n)
			}
		}
	}
	rank := func(l Level) int { return slices.Index([]Level{Error, Warning, Note}, l) }
	slices.SortStableFunc(out, func(a, b Finding) int { return rank(a.Level) - rank(b.Level) })
	return out
}

// severe is an error where ranks talk through an MPI, else a warning.
func (c *checker) severe() Level {
	if c.plan.parallel() {
		return Error
	}
	return Warning
}

// Sizes below which a check speaks.
const (
	minMemlock   = 64 << 20 // UCX and libfabric register tens of MiB a process
	shmNeed      = 4 << 20  // of a rank: Open MPI's segment, MPICH's queues
	shmPlenty    = 16 << 20 // of a rank: large messages too
	minFree      = 1 << 20
	lowFree      = 64 << 20
	minInodes    = 100
	lowInodes    = 1000
	longTmp      = 60  // bytes of TMPDIR: a unix socket's path has 107, and libraries add directories
	tasksPerRank = 8   // threads that MPI libraries and their helpers make
	filesSpare   = 128 // beside a connection to every rank
)

// node judges what a node says of itself alone.
func (c *checker) node(n Facts) {
	c.limits(n)
	c.shm(n)
	for _, s := range n.Stale {
		c.add(Warning, "stale", n.Node, "remove them there when none of your jobs uses them: rm -r "+s.Glob,
			"%s that dead processes of yours left: %d with %s, such as %s", s.Kind, s.Count, size(s.Bytes), s.Path)
	}
	c.tmp(n)
	if s := n.TaskRoot; s != nil {
		c.space("task-root", "the task root", n.Node, *s, Warning, "free space there, or the tasks' output is lost")
	}
	c.cpus(n)
	if len(n.Missing) > 0 {
		c.add(Error, "library", n.Node, "install it there, or name its directory in LD_LIBRARY_PATH (-x, --setup)",
			"the program needs %s, which the loader does not find", strings.Join(n.Missing, ", "))
	}
	if len(n.Helpers) > 0 {
		c.add(Error, "launcher", n.Node, "install the same MPI at the same place there, or use --launch pmi where the MPI is of MPICH's family",
			"mpirun starts %s, which is not there", strings.Join(n.Helpers, ", "))
	}
	for _, f := range n.Failed {
		c.add(Warning, "answer", n.Node, "", "%s", f)
	}
}

func (c *checker) limits(n Facts) {
	if n.Memlock != nil && *n.Memlock < minMemlock && active(n.HCAs) && c.usesFabric() {
		c.add(c.severe(), "memlock", n.Node,
			"put \"* soft memlock unlimited\" and \"* hard memlock unlimited\" into /etc/security/limits.conf there (of a service: LimitMEMLOCK=infinity) and start its agent again",
			"a process may lock %s of memory: too little to use the InfiniBand adapter", size(*n.Memlock))
	}
	if n.Processes != nil && n.Tasks != nil && n.Ranks > 0 {
		if need := *n.Tasks + uint64(n.Ranks)*tasksPerRank; *n.Processes < need {
			c.add(Warning, "processes", n.Node, "raise nproc in /etc/security/limits.conf there",
				"the user may have %d processes and threads and has %d: %d ranks need about %d more", *n.Processes, *n.Tasks, n.Ranks, n.Ranks*tasksPerRank)
		}
	}
	if n.OpenFiles != nil && c.plan.parallel() {
		total := 0
		for _, m := range c.gang {
			total += m.Ranks
		}
		if need := uint64(total + filesSpare); *n.OpenFiles < need {
			c.add(Warning, "files", n.Node, "raise nofile in /etc/security/limits.conf there",
				"a rank may open %d files: with a connection to each of %d ranks it needs about %d", *n.OpenFiles, total, need)
		}
	}
}

func (c *checker) shm(n Facts) {
	s := n.Shm
	if s == nil || !c.plan.parallel() || n.Ranks < 2 {
		return
	}
	const hint = "mount /dev/shm larger there (a container: --shm-size), or remove what fills it"
	ranks := uint64(n.Ranks)
	switch {
	case s.Denied != "":
		c.add(Error, "shm", n.Node, "mount a tmpfs with mode 1777 there", "no file can be made in %s: %s", s.Path, s.Denied)
	case s.Free < ranks*shmNeed:
		c.add(Error, "shm", n.Node, hint, "%s has %s free: %d ranks need at least %s", s.Path, size(s.Free), ranks, size(ranks*shmNeed))
	case s.Free < ranks*shmPlenty:
		c.add(Warning, "shm", n.Node, hint, "%s has %s free: %d ranks may need %s", s.Path, size(s.Free), ranks, size(ranks*shmPlenty))
	}
}

func (c *checker) tmp(n Facts) {
	s := n.Tmp
	if s == nil {
		return
	}
	if s.Denied != "" {
		c.add(c.severe(), "tmpdir", n.Node, "give --tmpdir a local directory that can be written", "no file can be made in TMPDIR, %s: %s", s.Path, s.Denied)
		return
	}
	if len(s.Path) > longTmp && c.plan.parallel() {
		c.add(Warning, "tmpdir-length", n.Node, "give --tmpdir a short directory such as /tmp",
			"TMPDIR has %d bytes (%s): MPI libraries make unix sockets below it, whose path can have 107", len(s.Path), s.Path)
	}
	c.space("disk", "TMPDIR", n.Node, *s, c.severe(), "free space there, or give --tmpdir another local directory")
}

// space judges the free space of a file system.
func (c *checker) space(check, what, node string, s Space, full Level, hint string) {
	switch {
	case s.Denied != "":
		c.add(full, check, node, hint, "no file can be made in %s, %s: %s", what, s.Path, s.Denied)
	case s.Free < minFree:
		c.add(full, check, node, hint, "%s, %s, is full: %s free", what, s.Path, size(s.Free))
	case !s.NoIno && s.Inodes < minInodes:
		c.add(full, check, node, "remove files there", "%s, %s, has %d inodes free", what, s.Path, s.Inodes)
	case s.Free < lowFree:
		c.add(Warning, check, node, hint, "%s, %s, is nearly full: %s free", what, s.Path, size(s.Free))
	case !s.NoIno && s.Inodes < lowInodes:
		c.add(Warning, check, node, "remove files there", "%s, %s, has only %d inodes free", what, s.Path, s.Inodes)
	}
}

func (c *checker) cpus(n Facts) {
	if !n.Affinity.IsEmpty() && !n.Granted.IsEmpty() && c.plan.Bound {
		if out := n.Granted.Minus(n.Affinity); !out.IsEmpty() {
			c.add(Error, "affinity", n.Node, "look at the cpuset of the agent's service or container, and start the agent again",
				"cpus %s were granted, but processes here may run on %s only", out, n.Affinity)
		}
	}
	if n.Cores > 0 && n.Ranks > 0 && !c.plan.Oversubscribe && c.plan.Via != "primary" {
		if per := max(n.CoresPerRank, 1); n.Ranks*per > n.Cores {
			c.add(Error, "slots", n.Node, "ask for fewer ranks, or --oversubscribe", "%d ranks of %d cores each are to run on %d cores", n.Ranks, per, n.Cores)
		}
	}
}

// usesFabric says whether the ranks would go through an HCA: not if the user
// has chosen otherwise.
func (c *checker) usesFabric() bool {
	if !c.plan.parallel() {
		return false
	}
	for _, kv := range c.plan.Env {
		name, value, _ := strings.Cut(kv, "=")
		switch name {
		case "UCX_TLS":
			if !hasWord(value, "all", "ib", "rc", "rc_x", "rc_v", "rc_mlx5", "rc_verbs", "ud", "ud_x", "ud_v", "ud_mlx5", "ud_verbs", "dc", "dc_x", "dc_mlx5") && !strings.HasPrefix(value, "^") {
				return false
			}
		case "FI_PROVIDER", "I_MPI_OFI_PROVIDER":
			if hasWord(value, "tcp", "sockets", "shm", "tcp;ofi_rxm") {
				return false
			}
		case "OMPI_MCA_btl":
			if !strings.HasPrefix(value, "^") && !hasWord(value, "openib", "uct", "ofi") && c.plan.Flavour == mpi.OpenMPI && !c.ompiUCX() {
				return false
			}
		}
	}
	return true
}

func (c *checker) ompiUCX() bool {
	for _, kv := range c.plan.Env {
		if v, ok := strings.CutPrefix(kv, "OMPI_MCA_pml="); ok {
			return hasWord(v, "ucx", "cm")
		}
	}
	return true
}

func hasWord(list string, words ...string) bool {
	for _, w := range strings.Split(list, ",") {
		if slices.Contains(words, strings.TrimSpace(w)) {
			return true
		}
	}
	return false
}

// active says whether one of the adapters has a port that works.
func active(hcas []topology.HCA) bool {
	for _, h := range hcas {
		for _, p := range h.Ports {
			if p.State == "ACTIVE" {
				return true
			}
		}
	}
	return false
}

// size writes bytes for people.
func size(n uint64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d bytes", n)
	}
	v, i := float64(n)/(1<<10), 0
	for v >= 1024 && i < len(units)-1 {
		v, i = v/1024, i+1
	}
	return fmt.Sprintf("%.4g %ciB", v, units[i])
}
