package nodeagent

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"time"

	"google.golang.org/protobuf/proto"

	"gangway/gpu"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
)

// GPUSource says where the agent looks for GPUs. The zero value is this machine.
type GPUSource struct {
	Sys, Dev fs.FS                       // contents of /sys and /dev
	Find     func(program string) string // the path of a program, "": not there
	Patience time.Duration               // for each program; 0: the package's
	Recheck  time.Duration               // between two looks; 0: five minutes; negative: never
}

const (
	// gpuGreeting is how long launchers wait for their first message while the
	// drivers are asked. They give up after 15 s.
	gpuGreeting = 8 * time.Second
	gpuRecheck  = 5 * time.Minute
	// gpuOutput bounds what a program may write: 16 GPUs take some 500 kB of XML.
	gpuOutput = 16 << 20
)

// gpuPath is where drivers put their programs, beyond the PATH of a login
// without a profile.
func gpuPath() []string {
	return []string{"/usr/local/bin", "/usr/bin", "/bin", "/usr/sbin", "/sbin", "/usr/local/nvidia/bin", "/opt/bin", "/usr/lib/wsl/lib"}
}

// machine is what gpu.Probe needs, with run to start programs. executable is this
// program, whose helper is beside it.
func (s GPUSource) machine(executable string, run func(ctx context.Context, path string, args ...string) (gpu.Output, error)) gpu.Machine {
	m := gpu.Machine{Sys: s.Sys, Dev: s.Dev, Find: s.Find, Run: run, Patience: s.Patience}
	if m.Sys == nil {
		m.Sys = os.DirFS("/sys")
	}
	if m.Dev == nil {
		m.Dev = os.DirFS("/dev")
	}
	if m.Find == nil {
		m.Find = func(program string) string { return findProgram(executable, program) }
	}
	return m
}

func findProgram(executable, program string) string {
	var tries []string
	if program == gpu.HelperName && executable != "" {
		tries = append(tries, filepath.Join(filepath.Dir(executable), program))
	}
	if p, err := exec.LookPath(program); err == nil {
		if p, err = filepath.Abs(p); err == nil {
			tries = append(tries, p)
		}
	}
	for _, d := range gpuPath() {
		tries = append(tries, filepath.Join(d, program))
	}
	for _, p := range tries {
		if fi, err := os.Stat(p); err == nil && fi.Mode().IsRegular() && fi.Mode()&0o111 != 0 {
			return p
		}
	}
	return ""
}

// gpuCommand is how a driver's program is started: in plain English, whatever
// this process's locale is.
func gpuCommand(path string, args []string) proc.Cmd {
	env := slices.DeleteFunc(os.Environ(), func(e string) bool {
		return len(e) > 3 && e[:3] == "LC_" || len(e) > 5 && e[:5] == "LANG="
	})
	return proc.Cmd{Path: path, Args: append([]string{path}, args...), Env: append(env, "LC_ALL=C"), Dir: "/", KillWithParent: true}
}

// outcome turns what proc.Output gave into what gpu.Probe wants.
func outcome(stdout, stderr []byte, err error) (gpu.Output, error) {
	var stuck *proc.StuckError
	if errors.As(err, &stuck) {
		err = errors.Join(gpu.ErrStuck, err)
	}
	return gpu.Output{Stdout: stdout, Stderr: stderr}, err
}

// ProbeGPUs adds to the model of this machine what its GPU drivers say.
// executable is the path of this program. Where there is no GPU it starts nothing.
func ProbeGPUs(ctx context.Context, n *topology.Node, src GPUSource, executable string) {
	m := src.machine(executable, func(ctx context.Context, path string, args ...string) (gpu.Output, error) {
		return outcome(proc.Output(ctx, proc.Start, gpuCommand(path, args), gpuOutput))
	})
	if !gpu.Plausible(m, *n) {
		return
	}
	r := gpu.Probe(ctx, m, *n)
	gpu.Locate(n, m.Sys, r)
	gpu.Merge(n, r)
}

// gpus is what the agent knows of its node's. Its fields belong to run.
type gpus struct {
	node     topology.Node // without GPUs
	there    bool          // there may be some
	asking   bool
	known    bool // they were asked for, or took too long
	stuck    bool
	began    time.Time
	next     time.Time // when to ask again
	last     gpu.Result
	ever     gpu.Result // all GPUs that were seen in this agent's life
	pids     []int      // of programs that run, and of those that can't be ended
	greeters []chan *wire.Hello
	held     []func() // programs to be started when a sweep is over
}

// begin asks the drivers for the first time, where there may be any.
func (g *gpus) begin(a *agent) {
	g.began = time.Now()
	if g.there = gpu.Plausible(a.gpuMachine(), g.node); !g.there {
		g.known = true
		return
	}
	g.ask(a)
}

func (a *agent) gpuMachine() gpu.Machine { return a.cfg.GPUs.machine(a.cfg.Executable, a.runDriver) }

func (g *gpus) ask(a *agent) {
	g.asking = true
	m, n := a.gpuMachine(), g.node
	a.wg.Go(func() {
		r := gpu.Probe(a.ctx, m, n)
		if a.ctx.Err() != nil {
			return // what it says is of programs that were killed
		}
		a.post(func(a *agent) { a.gpus.answer(a, m, r) })
	})
}

// waiting says whether launchers are kept waiting for the drivers.
func (g *gpus) waiting() bool { return g.there && !g.known }

func (g *gpus) tick(a *agent, now time.Time) {
	switch {
	case g.waiting() && now.Sub(g.began) >= gpuGreeting:
		// The node is of use without GPUs as well.
		a.cfg.Log.Warn("the GPU drivers have not answered yet", "waited", gpuGreeting)
		n := g.node
		n.Warnings = append(slices.Clone(n.Warnings), "GPUs: their driver has not answered yet; they follow when it does")
		g.publish(a, n)
		g.greet(a)
	case g.there && !g.asking && !g.stuck && !g.next.IsZero() && now.After(g.next):
		g.ask(a)
	}
}

// answer takes what the drivers said.
func (g *gpus) answer(a *agent, m gpu.Machine, r gpu.Result) {
	g.asking, g.stuck = false, g.stuck || r.Stuck
	if every := a.cfg.GPUs.Recheck; every >= 0 {
		if every == 0 {
			every = gpuRecheck
		}
		// A cluster's nodes do not all ask, and speak, at the same time.
		g.next = time.Now().Add(time.Duration(float64(every) * (0.9 + 0.2*rand.Float64())))
	}
	for _, w := range r.Warnings {
		if !slices.Contains(g.last.Warnings, w) {
			a.cfg.Log.Warn("GPUs", "what", w)
		}
	}
	gone := gpu.Lost(g.ever, r)
	for _, w := range gone {
		if !slices.Contains(g.last.Warnings, w) {
			a.cfg.Log.Warn("GPUs", "what", w)
		}
	}
	r.Warnings = append(slices.Clone(r.Warnings), gone...)
	if r.Source != "" {
		g.ever.Source = r.Source
		for _, x := range r.GPUs {
			if !slices.ContainsFunc(g.ever.GPUs, func(y topology.GPU) bool { return y.UUID == x.UUID && y.PCI == x.PCI }) {
				g.ever.GPUs = append(g.ever.GPUs, x)
			}
		}
	} else if len(g.last.GPUs) > 0 {
		// Nobody speaks for them now, so nobody is to be given any.
		r.GPUs, r.Links = slices.Clone(g.last.GPUs), g.last.Links
		for i := range r.GPUs {
			r.GPUs[i].Health.Problem = "the driver does not answer any more: look at the kernel's log for Xid"
		}
	}
	g.last = r
	n := g.node
	gpu.Locate(&n, m.Sys, r)
	gpu.Merge(&n, r)
	g.publish(a, n)
	g.greet(a)
	for s := range a.sessions {
		g.tell(a, s)
	}
}

// publish makes n the node's model for launchers and shims that come.
func (g *gpus) publish(a *agent, n topology.Node) {
	b, err := json.Marshal(n)
	if err != nil {
		a.cfg.Log.Error("encoding the probed node", "err", err)
		return
	}
	h := proto.CloneOf(a.hello)
	h.NodeJson = b
	a.hello = h
}

func (g *gpus) greet(a *agent) {
	g.known = true
	for _, c := range g.greeters {
		c <- a.hello
	}
	g.greeters = nil
}

// tell brings a launcher's model of the node up to date, when there is something
// to act upon: temperatures alone are not.
func (g *gpus) tell(a *agent, s *session) {
	if !s.updates || s.bye || s.hello == a.hello || sameGPUs(s.hello.GetNodeJson(), a.hello.GetNodeJson()) {
		return
	}
	s.hello = a.hello
	s.send(&wire.AgentMessage{M: &wire.AgentMessage_NodeUpdate{NodeUpdate: &wire.NodeUpdate{NodeJson: a.hello.GetNodeJson()}}})
}

func sameGPUs(x, y []byte) bool {
	var calm [2][]byte
	for i, b := range [][]byte{x, y} {
		var n topology.Node
		if json.Unmarshal(b, &n) != nil {
			return false
		}
		for k := range n.GPUs {
			h := &n.GPUs[k].Health
			h.TemperatureC, h.PowerMilliW, h.Corrected, h.Throttle = nil, nil, nil, nil
		}
		calm[i], _ = json.Marshal(n)
	}
	return string(calm[0]) == string(calm[1])
}

// greeting is the first message for a launcher, once the GPUs are known or have
// taken too long. ok is false when the agent or ctx ends before.
func (a *agent) greeting(ctx context.Context) (h *wire.Hello, ok bool) {
	c := make(chan *wire.Hello, 1)
	if !a.post(func(a *agent) {
		if a.gpus.waiting() {
			a.gpus.greeters = append(a.gpus.greeters, c)
			return
		}
		c <- a.hello
	}) {
		return nil, false
	}
	select {
	case h = <-c:
		return h, true
	case <-ctx.Done():
	case <-a.done:
	}
	return nil, false
}

// runDriver runs a program for gpu.Probe, as a child that sweeps spare.
func (a *agent) runDriver(ctx context.Context, path string, args ...string) (gpu.Output, error) {
	var pid int
	start := func(c proc.Cmd) (*proc.Process, error) {
		type started struct {
			p   *proc.Process
			err error
		}
		got := make(chan started, 1)
		begin := func(a *agent) {
			p, err := a.forker.Start(c)
			if err == nil {
				a.gpus.pids = append(a.gpus.pids, p.Pid())
			}
			got <- started{p, err}
		}
		if !a.post(func(a *agent) {
			if a.sweeping > 0 {
				// It would be taken for what is to be swept.
				a.gpus.held = append(a.gpus.held, func() { begin(a) })
				return
			}
			begin(a)
		}) {
			return nil, context.Canceled
		}
		var s started
		select {
		case s = <-got:
		case <-a.done:
			select {
			case s = <-got:
			default:
				return nil, context.Canceled
			}
		}
		if s.err == nil {
			pid = s.p.Pid()
		}
		return s.p, s.err
	}
	out, diag, err := proc.Output(ctx, start, gpuCommand(path, args), gpuOutput)
	var stuck *proc.StuckError
	a.post(func(a *agent) {
		a.gpus.pids = slices.DeleteFunc(a.gpus.pids, func(p int) bool { return p == pid })
		if errors.As(err, &stuck) {
			a.gpus.pids = append(a.gpus.pids, stuck.PIDs...)
		}
	})
	return outcome(out, diag, err)
}

// startHeld starts what a sweep kept waiting.
func (g *gpus) startHeld() {
	held := g.held
	g.held = nil
	for _, f := range held {
		f()
	}
}
