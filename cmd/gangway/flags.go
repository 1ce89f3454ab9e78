package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"gangway/launcher/job"
	"gangway/launcher/jobfile"
	"gangway/launcher/pool"
	"gangway/topology"
)

// runFlags are what run and plan share.
type runFlags struct {
	nodes, ranks, ppn, cores, gpus int
	threads, smt                   int
	optimize                       string
	noGreedy, reportBindings       bool
	mem                            string
	oversubscribe                  bool
	mpi, launch, bind, network     string
	switches, spread, fabric       string
	preflight                      string
	distribution                   string
	hosts, hostfile, agents, key   string
	timeLimit, grace, deadline     time.Duration
	setup, chdir, name             string
	env                            []string
	bcast, label, fold, verbose    bool
	priority                       int
	base, sshConfig, agentBinary   string

	given    func(name string) bool // whether the user set a flag
	standing bool                   // the nodes are a launcher's that stays, not known here
}

func (f *runFlags) register(c *cobra.Command) {
	fl := c.Flags()
	f.given = fl.Changed
	fl.SetInterspersed(false)
	fl.IntVarP(&f.nodes, "nodes", "N", 0, "number of nodes (default: as many as the ranks need; with --hosts all of them)")
	fl.IntVarP(&f.ranks, "ranks", "n", 0, "number of ranks")
	fl.IntVar(&f.ppn, "ppn", 0, "ranks per node")
	fl.IntVarP(&f.cores, "cpus-per-rank", "c", 1, "whole cores per rank (default with --threads: as many as they need)")
	fl.IntVar(&f.gpus, "gpus-per-rank", 0, "GPUs per rank")
	fl.StringVar(&f.mem, "mem-per-rank", "", "memory per rank, for example 2G; enforced per node where cgroups allow")
	fl.BoolVar(&f.oversubscribe, "oversubscribe", false, "let ranks share cores when there are too few")
	fl.StringVar(&f.mpi, "mpi", "auto", "auto, mpich, intel, openmpi, msmpi or none")
	fl.StringVar(&f.launch, "launch", "auto", "auto; pmi or mpirun: what starts the ranks (pmi: gangway itself, without an mpirun; for MPICH and Intel MPI); primary: CMD runs once, on the first node")
	fl.StringVar(&f.hosts, "hosts", "", "hosts to use, by ssh: a hostlist such as n[1-4,7]")
	fl.StringVar(&f.hostfile, "hostfile", "", "file with hosts and slots, in MPICH's or Open MPI's dialect")
	fl.StringVar(&f.agents, "agents", "", "standing agents to use: a hostlist with a port, such as n[1-4]:7700")
	fl.StringVar(&f.key, "key", "", "file with the standing agents' key")
	fl.StringVar(&f.bind, "bind", "auto", "bind ranks to: auto, core, numa, socket, gpu or none")
	fl.StringVar(&f.fabric, "fabric", "", "file that describes the network's switches: ibnetdiscover's output, topology.conf or YAML")
	fl.IntVar(&f.threads, "threads", 0, "threads per rank, for OMP_NUM_THREADS and OMP_PLACES (default: as its cores have it)")
	fl.IntVar(&f.smt, "smt", 0, "hardware threads (PUs) to use of each core (default: as the binding has it)")
	fl.StringVar(&f.optimize, "optimize", "", "with --bind auto, deal ranks to NUMA nodes by their GPUs (gpu, default) or by their PUs (cpu)")
	fl.BoolVar(&f.noGreedy, "no-greedy", false, "with --bind auto, keep a rank within a NUMA node even when there are fewer ranks")
	fl.BoolVar(&f.reportBindings, "report-bindings", false, "print where each rank is bound before they start")
	fl.StringVar(&f.switches, "switches", "", "leaf switches to be on at most, N or N@TIME: waits for them, after TIME takes any; needs a launcher that knows the fabric")
	fl.StringVar(&f.spread, "spread", "", "over several leaf switches: pack (default) fills leaves, balance takes as many nodes of each")
	fl.StringVar(&f.preflight, "preflight", "fast", "checks on the nodes before the start: off, fast, or full, which also measures the network between them")
	fl.StringVarP(&f.distribution, "distribution", "m", "", "ranks over nodes: block (default: a node's ranks follow each other) or cyclic (dealt in rounds)")
	fl.StringVar(&f.network, "network", "", "data network: an interface's name or a CIDR (default: one that all nodes share)")
	fl.DurationVar(&f.timeLimit, "time", 0, "time limit, for example 90m; enforced on the nodes")
	fl.DurationVar(&f.grace, "kill-grace", 5*time.Second, "from SIGTERM to SIGKILL at the time limit and on cancel")
	fl.DurationVar(&f.deadline, "launch-timeout", time.Minute, "how long mpirun may take until all ranks have started")
	fl.StringVar(&f.setup, "setup", "", "shell script to source on every node first (module load …)")
	fl.StringVarP(&f.chdir, "chdir", "D", "", "working directory on the nodes (default: the current one)")
	fl.StringVar(&f.name, "name", "", "name of the job (default: the program's)")
	fl.StringArrayVarP(&f.env, "env", "x", nil, "NAME=VALUE to set, or NAME to pass on, on the nodes (repeatable)")
	fl.BoolVar(&f.bcast, "bcast", false, "copy the program to every node first")
	fl.BoolVarP(&f.label, "label", "l", false, "prefix each line of output with its rank")
	fl.BoolVar(&f.fold, "fold", false, "print a line that several ranks write once, with the list of them: [0-1023] text")
	fl.BoolVarP(&f.verbose, "verbose", "v", false, "show placement and what is started")
	fl.IntVar(&f.priority, "priority", 0, "priority, -1000 to 1000")
	fl.StringVar(&f.base, "tmpdir", "", "local directory on the nodes for sockets and scratch files (default /tmp)")
	fl.StringVarP(&f.sshConfig, "ssh-config", "F", "", "ssh configuration to use in place of ~/.ssh/config")
	fl.StringVar(&f.agentBinary, "agent-binary", "", "gangway built for the nodes' architecture, if it differs")
	c.MarkFlagsMutuallyExclusive("hosts", "hostfile", "agents")
}

// hostEntries is the list of nodes the user named; nil means this machine.
func (f *runFlags) hostEntries() ([]topology.HostEntry, error) {
	// An empty list comes of a variable that is not set: the job is not for
	// this machine then.
	for name, value := range map[string]string{"hosts": f.hosts, "hostfile": f.hostfile, "agents": f.agents} {
		if value == "" && f.given(name) {
			return nil, usagef("name them, or leave the flag out to use this machine", "--%s is empty", name)
		}
	}
	switch {
	case f.hostfile != "":
		fh, err := os.Open(f.hostfile)
		if err != nil {
			return nil, usagef("", "--hostfile: %v", err)
		}
		defer fh.Close()
		entries, err := topology.ParseHostfile(fh, f.hostfile)
		if err != nil {
			return nil, usagef("one host a line: name, name:ranks or name slots=ranks", "%v", err)
		}
		if len(entries) == 0 {
			return nil, usagef("one host a line: name, name:ranks or name slots=ranks", "--hostfile %s names no host", f.hostfile)
		}
		return entries, nil
	case f.hosts != "" || f.agents != "":
		flag, list, port := "--hosts", f.hosts, ""
		if f.agents != "" {
			flag, list = "--agents", f.agents
			i := strings.LastIndexByte(list, ':')
			if i < 0 || i < strings.LastIndexByte(list, ']') {
				return nil, usagef("for example --agents 'n[1-4]:7700'", "--agents %q has no port", list)
			}
			list, port = list[:i], list[i:]
			if n, err := strconv.Atoi(port[1:]); err != nil || n < 1 || n > 65535 {
				return nil, usagef("for example --agents 'n[1-4]:7700'", "--agents: %q is no port", port[1:])
			}
		}
		names, err := topology.ExpandHosts(list)
		if err != nil {
			return nil, usagef("for example 'n1,n2' or 'n[1-4,7]'", "%s: %v", flag, err)
		}
		var out []topology.HostEntry
		for _, n := range names {
			out = append(out, topology.HostEntry{Name: n + port})
		}
		return out, nil
	}
	return nil, nil
}

// provider returns the pool and the nodes' names as the scheduler knows them.
func (f *runFlags) provider(entries []topology.HostEntry, warn func(string)) (pool.Provider, error) {
	exe, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("%w: %w", errNoExecutable, err)
	}
	args := []string{"bridge"}
	if f.base != "" {
		args = append(args, "--tmpdir", f.base)
	}
	var nodes []pool.Node
	for _, e := range entries {
		nodes = append(nodes, pool.Node{Name: e.Name, Slots: e.Slots})
	}
	switch {
	case len(entries) == 0:
		var env []string
		if f.base != "" {
			env = append(env, "GANGWAY_TMPDIR="+f.base)
		}
		return pool.Local(exe, env...), nil
	case f.agents != "":
		key, err := readKey(f.key)
		if err != nil {
			return nil, err
		}
		return pool.Standing(nodes, key)
	}
	bins := []string{exe}
	if f.agentBinary != "" {
		bins = append(bins, f.agentBinary)
	}
	return pool.SSH(pool.SSHConfig{Binaries: bins, Args: args, ConfigFile: f.sshConfig, Warn: warn}, nodes)
}

// spec builds the job.
func (f *runFlags) spec(entries []topology.HostEntry, command []string) (job.Spec, error) {
	if len(command) == 0 {
		return job.Spec{}, usagef("gangway run -n 4 -- ./program", "no command given")
	}
	for _, c := range []struct {
		flag string
		n    int
		set  bool
	}{{"-N", f.nodes, f.given("nodes")}, {"-n", f.ranks, f.given("ranks")}, {"--ppn", f.ppn, f.given("ppn")}, {"-c", f.cores, true},
		{"--threads", f.threads, f.given("threads")}, {"--smt", f.smt, f.given("smt")}} {
		if c.set && c.n < 1 {
			return job.Spec{}, usagef("give a number from 1", "%s %d", c.flag, c.n)
		}
	}
	t := job.TaskSpec{
		ID: "run", Kind: job.Gang, Nodes: f.nodes, Ranks: f.ranks, RanksPerNode: f.ppn, CoresPerRank: f.cores,
		GPUsPerRank: f.gpus, Oversubscribe: f.oversubscribe, MPI: f.mpi, Launch: job.LaunchRanks, Bind: f.bind,
		Network: f.network, TimeLimit: f.timeLimit, KillGrace: f.grace, LaunchDeadline: f.deadline, Spread: job.Spread(f.spread), Distribution: job.Distribution(f.distribution),
		Command: command, Stdin: true, OnNodeLoss: job.NodeLossFail, Bcast: f.bcast,
	}
	t.Threads, t.SMT, t.Optimize, t.NoGreedy = f.threads, f.smt, f.optimize, f.noGreedy
	switch f.preflight {
	case "fast", "": // the default
	case "off", "full":
		t.Preflight = f.preflight
	default:
		return job.Spec{}, usagef("off, fast or full", "--preflight %q is unknown", f.preflight)
	}
	if f.threads > 0 && !f.given("cpus-per-rank") {
		t.CoresPerRank = 0 // as the threads need
	}
	switch f.launch {
	case "auto", "mpirun", "pmi":
		t.Via = f.launch
	case "primary":
		t.Launch = job.LaunchPrimary
	default:
		return job.Spec{}, usagef("auto, pmi, mpirun or primary", "--launch %q is unknown", f.launch)
	}
	if f.mem != "" {
		n, err := parseBytes(f.mem)
		if err != nil {
			return job.Spec{}, usagef("for example 512M or 2G", "--mem-per-rank: %v", err)
		}
		t.MemPerRank = n
	}
	if f.switches != "" {
		var err error
		if t.Switches, t.SwitchesWait, err = jobfile.ParseSwitches(f.switches); err != nil {
			return job.Spec{}, usagef("for example --switches 1 or --switches 2@30m", "--switches: %v", err)
		}
	}
	if err := f.shape(&t, entries); err != nil {
		return job.Spec{}, err
	}
	if err := f.surroundings(&t, len(entries) == 0); err != nil {
		return job.Spec{}, err
	}
	return job.Spec{ID: f.jobName(command[0]), Priority: f.priority, Session: true, Tasks: []job.TaskSpec{t}}, nil
}

// surroundings are directory, environment and set-up script. On this machine
// the task gets the environment of the shell, as any child would; elsewhere it
// gets the node's own.
func (f *runFlags) surroundings(t *job.TaskSpec, local bool) error {
	cwd, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("the current directory: %w", err)
	}
	t.WorkDir = cwd
	switch {
	case f.chdir == "~" || strings.HasPrefix(f.chdir, "~/"):
		t.WorkDir = f.chdir
	case f.chdir != "" && filepath.IsAbs(f.chdir):
		t.WorkDir = filepath.Clean(f.chdir)
	case f.chdir != "":
		t.WorkDir = filepath.Join(cwd, f.chdir)
	}
	if local {
		// What is not UTF-8 can't be sent; a stray variable of the shell is no
		// reason to run nothing.
		t.EnvBase = slices.DeleteFunc(os.Environ(), func(e string) bool { return !utf8.ValidString(e) })
	}
	for _, e := range f.env {
		name, _, ok := strings.Cut(e, "=")
		if name == "" {
			return usagef("-x NAME=VALUE or -x NAME", "-x %q has no name", e)
		}
		if !job.EnvName(name) {
			return usagef("-x NAME=VALUE; a name has letters, digits and _, and no digit first", "-x: %q can't be the name of a variable", name)
		}
		if !ok {
			v, set := os.LookupEnv(name)
			if !set {
				return usagef("set it, or give -x "+name+"=VALUE", "-x %s: no such variable here", name)
			}
			e = name + "=" + v
		}
		t.Env = append(t.Env, e)
	}
	if f.setup != "" {
		b, err := os.ReadFile(f.setup)
		if err != nil {
			return usagef("", "--setup: %v", err)
		}
		if bytes.IndexByte(b, 0) >= 0 {
			return usagef("", "--setup %s is not a shell script: it has zero bytes", f.setup)
		}
		if !utf8.ValidString(f.setup) {
			return usagef("rename the file", "--setup: the name %q is not UTF-8", f.setup)
		}
		t.Setup = &job.Setup{Name: f.setup, Script: b}
	}
	return nil
}

// jobName makes an id of a program's name.
func (f *runFlags) jobName(program string) string {
	if f.name != "" {
		return f.name
	}
	id := strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z', r >= 'A' && r <= 'Z', r >= '0' && r <= '9', r == '-', r == '_':
			return r
		}
		return '_'
	}, filepath.Base(program))
	return id[:min(len(id), job.MaxID)]
}

// parseBytes reads a size: digits and an optional K, M, G or T, powers of 1024.
func parseBytes(s string) (uint64, error) {
	num := strings.TrimRight(s, "kKmMgGtTiIbB")
	unit := strings.ToUpper(strings.TrimSuffix(strings.TrimSuffix(strings.ToUpper(s[len(num):]), "B"), "I"))
	shift, ok := map[string]uint{"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[unit]
	n, err := strconv.ParseUint(num, 10, 64)
	switch {
	case err != nil || !ok:
		return 0, fmt.Errorf("%q is no size", s)
	case n == 0:
		return 0, errors.New("0 bytes")
	case n > (1<<62)>>shift:
		return 0, fmt.Errorf("%q is too much", s)
	}
	return n << shift, nil
}
