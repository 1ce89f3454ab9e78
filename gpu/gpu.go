// Package gpu finds a machine's GPUs, what connects them and how they are: from
// NVIDIA's driver through the helper gangway-nvml, else through the text of
// nvidia-smi, and from the Linux kernel's files for AMD's.
//
// All ways fill the same model. What a driver does not say is unknown, never
// zero. Text is taken as hostile: a line that can't be read costs its fact and
// leaves a warning.
package gpu

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"time"

	"gangway/topology"
)

// Result is what was found. A GPU that is there but does not answer is not among
// GPUs: a warning names it.
type Result struct {
	// Source is who told: nvml, nvidia-smi, kfd, joined with "+"; "": nobody.
	Source   string
	GPUs     []topology.GPU  // by vendor, index
	Links    []topology.Link // pairs of GPUs, and of GPUs and HCAs
	Warnings []string
	// Stuck says that a program could not be ended even by SIGKILL, because the
	// driver holds it in the kernel. Another try would only add to it.
	Stuck bool
}

// Output is what a program wrote.
type Output struct{ Stdout, Stderr []byte }

// ErrStuck is in the error of Machine.Run when the program could not be ended.
var ErrStuck = errors.New("it can't be ended: the driver holds it in the kernel; only a reboot of the node helps")

// Machine is what Probe needs of the machine that it runs on.
type Machine struct {
	Sys fs.FS // contents of /sys; nil: none
	Dev fs.FS // contents of /dev; nil: none
	// Find returns the path of a program, "" if it is not there.
	Find func(program string) string
	// Run runs a program until it ends or ctx does, when it must end the program
	// and all that it started, and returns an error that wraps ctx's. Output is
	// bounded, and returned with every error.
	Run func(ctx context.Context, path string, args ...string) (Output, error)
	// Patience is how long each program may take; 0: 30 s. A driver without
	// persistence starts every GPU first, which takes seconds.
	Patience time.Duration
}

const patience = 30 * time.Second

// Probe asks the drivers of the machine whose model n is. It starts a program
// only where there is an NVIDIA GPU or its driver.
func Probe(ctx context.Context, m Machine, n topology.Node) Result {
	s := survey(m, n)
	var nv, amd Result
	if s.nvidia() {
		nv = probeNVIDIA(ctx, m, s)
	}
	if s.kfd {
		amd = ReadKFD(m.Sys)
	}
	return join(nv, amd)
}

// Plausible reports whether Probe would look for GPUs: whether the machine has a
// display device of a vendor that it knows, or its driver. It reads a few files
// and starts nothing.
func Plausible(m Machine, n topology.Node) bool {
	s := survey(m, n)
	return s.nvidia() || s.kfd
}

// join puts the vendors' results together. Two vendors number their GPUs alike,
// and a node's GPUs are known by number, so only one's can be used.
func join(nv, amd Result) Result {
	if nv.Source == "" && len(nv.GPUs) == 0 {
		amd.Warnings = append(nv.Warnings, amd.Warnings...)
		amd.Stuck = nv.Stuck
		return amd
	}
	if len(nv.GPUs) > 0 && len(amd.GPUs) > 0 {
		nv.Warnings = append(nv.Warnings, fmt.Sprintf(
			"/sys/class/kfd: %d AMD GPUs are left out beside %d of NVIDIA: the vendors' numbers would be mixed up", len(amd.GPUs), len(nv.GPUs)))
		amd.GPUs, amd.Links = nil, nil
	}
	if len(amd.GPUs) > 0 {
		nv.Source += "+" + amd.Source
	}
	nv.GPUs = append(nv.GPUs, amd.GPUs...)
	nv.Links = append(nv.Links, amd.Links...)
	nv.Warnings = append(nv.Warnings, amd.Warnings...)
	return nv
}

// probeNVIDIA asks the helper, then nvidia-smi; then the kernel's log for the
// driver's errors.
func probeNVIDIA(ctx context.Context, m Machine, s surveyed) Result {
	p := prober{m: m}
	var out Result
	asked, ok := false, false
	if path := m.Find(HelperName); path != "" {
		asked = true
		out, ok = p.helper(ctx, path)
	}
	if path := m.Find("nvidia-smi"); path != "" && !ok && !p.stuck {
		asked = true
		out, ok = p.smi(ctx, path, s)
	}
	if !ok {
		out.Source = "" // what it said is why it says nothing
	}
	if !asked {
		p.warn("nvidia-smi", "neither %s nor nvidia-smi is on this node's PATH: its NVIDIA GPUs are unknown", HelperName)
	}
	out.Warnings = append(p.warnings, out.Warnings...)
	out.Stuck = p.stuck
	out.Warnings = append(out.Warnings, s.missing(out, asked)...)
	if len(out.GPUs) > 0 && !p.stuck {
		if path := m.Find("dmesg"); path != "" {
			// Without the right to read the log there is nothing to be told.
			if o, err := p.run(ctx, path); err == nil {
				addXIDs(out.GPUs, ReadXIDs(string(o.Stdout)))
			}
		}
	}
	for i := range out.GPUs {
		if h := &out.GPUs[i].Health; h.Problem == "" {
			h.Problem = Problem(*h)
		}
	}
	return out
}

type prober struct {
	m        Machine
	warnings []string
	stuck    bool
}

func (p *prober) warn(what, format string, args ...any) {
	p.warnings = append(p.warnings, what+": "+fmt.Sprintf(format, args...))
}

// run gives a program its time. Its error says what became of it.
func (p *prober) run(ctx context.Context, path string, args ...string) (Output, error) {
	limit := p.m.Patience
	if limit <= 0 {
		limit = patience
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	out, err := p.m.Run(ctx, path, args...)
	p.stuck = p.stuck || errors.Is(err, ErrStuck)
	switch {
	case errors.Is(err, ErrStuck):
		return out, fmt.Errorf("no answer within %v, and %w", limit, ErrStuck)
	case errors.Is(err, context.DeadlineExceeded):
		return out, fmt.Errorf("no answer within %v, so it was killed: the driver or a GPU hangs; look at the kernel's log for Xid: %w", limit, err)
	}
	return out, err
}

// helper asks gangway-nvml. ok: it gave a document without an error.
func (p *prober) helper(ctx context.Context, path string) (Result, bool) {
	out, err := p.run(ctx, path)
	d, derr := ReadDocument(out.Stdout)
	switch {
	case derr == nil && d.Error == "":
		return d.result(), true
	case derr == nil:
		// Usual where the driver's library is missing: nvidia-smi says the same.
		p.warn(HelperName, "%s", d.Error)
	case err != nil:
		p.warn(HelperName, "%v%s", err, tail(out.Stderr))
	default:
		p.warn(HelperName, "%v", derr)
	}
	return Result{}, false
}

// tail is the last line of what a program complained about, for a message.
func tail(stderr []byte) string {
	s := strings.TrimSpace(clean(stderr))
	if i := strings.LastIndexByte(s, '\n'); i >= 0 {
		s = s[i+1:]
	}
	if s == "" {
		return ""
	}
	return ": " + clip(s, 200)
}

// addXIDs gives each GPU the errors that the kernel's log has of it.
func addXIDs(gpus []topology.GPU, xids map[string][]uint64) {
	for i := range gpus {
		h := &gpus[i].Health
		for _, x := range xids[gpus[i].PCI] {
			if !slices.Contains(h.XIDs, x) {
				h.XIDs = append(h.XIDs, x)
			}
		}
		slices.Sort(h.XIDs)
	}
}
