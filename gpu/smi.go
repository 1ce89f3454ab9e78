package gpu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"gangway/topology"
)

// smi asks nvidia-smi: its XML, else its table of values; then what connects
// the GPUs. ok: it answered, be it that there are none.
func (p *prober) smi(ctx context.Context, path string, s surveyed) (Result, bool) {
	out, err := p.run(ctx, path, "-q", "-x")
	r, xerr := ReadXML(out.Stdout)
	// What a GPU that is gone costs nvidia-smi is all it says of the others, so
	// each is asked for. The message is on either of its outputs.
	noteLost(clean(out.Stderr), &r)
	if hangs(err) || p.stuck {
		// More of its kind would hang as well.
		p.warn("nvidia-smi -q -x", "%v", err)
		return r, false
	}
	if bytes.Contains(out.Stdout, []byte("No devices were found")) && len(r.Warnings) == 0 {
		return Result{Source: "nvidia-smi"}, true
	}
	if len(r.Warnings) > 0 && len(r.GPUs) < len(s.cards) {
		r = p.smiEach(ctx, path, s, r)
	}
	if len(r.GPUs) == 0 {
		if len(r.Warnings) == 0 {
			p.warn("nvidia-smi -q -x", "%v%s", errors.Join(xerr, err), tail(out.Stderr))
		}
		c, err := p.run(ctx, path, "--query-gpu="+strings.Join(QueryFields(), ","), "--format=csv")
		t, cerr := ReadCSV(c.Stdout)
		if hangs(err) || cerr != nil {
			p.warn("nvidia-smi --query-gpu", "%v%s", errors.Join(cerr, err), tail(c.Stderr))
			return r, false
		}
		t.Warnings = append(r.Warnings, t.Warnings...)
		r = t
	}
	if len(r.GPUs) > 0 && !p.stuck {
		p.smiMore(ctx, path, &r)
	}
	return r, true
}

func hangs(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrStuck)
}

// smiEach asks for every card on the bus by itself. Numbers are those of the
// order on the bus, which is NVML's, the lost one included.
func (p *prober) smiEach(ctx context.Context, path string, s surveyed, all Result) Result {
	for i, c := range s.cards {
		if i == maxGPUs || p.stuck {
			break
		}
		if slices.ContainsFunc(all.GPUs, func(g topology.GPU) bool { return g.PCI == c.Address }) ||
			slices.ContainsFunc(all.Warnings, func(w string) bool { return strings.Contains(w, c.Address) }) {
			continue
		}
		out, err := p.run(ctx, path, "-q", "-x", "-i", c.Address)
		if hangs(err) {
			all.Warnings = append(all.Warnings, LostWarning(i, c.Address, "nvidia-smi hangs"))
			break
		}
		one, xerr := ReadXML(out.Stdout)
		noteLost(clean(out.Stderr), &one)
		for _, w := range one.Warnings {
			if !slices.Contains(all.Warnings, w) {
				all.Warnings = append(all.Warnings, w)
			}
		}
		if len(one.GPUs) != 1 {
			if len(one.Warnings) == 0 {
				all.Warnings = append(all.Warnings, LostWarning(i, c.Address, clip(fmt.Sprint(errors.Join(xerr, err)), 120)))
			}
			continue
		}
		g := one.GPUs[0]
		g.Index = i
		all.GPUs = append(all.GPUs, g)
	}
	slices.SortStableFunc(all.GPUs, func(a, b topology.GPU) int { return strings.Compare(a.PCI, b.PCI) })
	if len(all.GPUs) > 0 && all.GPUs[0].PCI != "" {
		for i := range all.GPUs {
			if k := slices.IndexFunc(s.cards, func(c topology.PCIDevice) bool { return c.Address == all.GPUs[i].PCI }); k >= 0 {
				all.GPUs[i].Index = k
			}
		}
	}
	return all
}

// smiMore adds what nvidia-smi says elsewhere: MIG instances, the matrix, peers.
// What fails costs its part.
func (p *prober) smiMore(ctx context.Context, path string, r *Result) {
	if out, err := p.run(ctx, path, "-L"); err != nil {
		p.warn("nvidia-smi -L", "%v%s", err, tail(out.Stderr))
	} else {
		r.addList(ReadList(out.Stdout))
	}
	if p.stuck {
		return
	}
	if out, err := p.run(ctx, path, "topo", "-m"); err != nil {
		p.warn("nvidia-smi topo -m", "%v%s", err, tail(out.Stderr))
	} else if err := r.addMatrix(out.Stdout); err != nil {
		p.warn("nvidia-smi topo -m", "%v", err)
	}
	if len(r.GPUs) < 2 || p.stuck {
		return
	}
	if out, err := p.run(ctx, path, "topo", "-p2p", "r"); err != nil {
		p.warn("nvidia-smi topo -p2p r", "%v%s", err, tail(out.Stderr))
	} else if peers, err := ReadP2P(out.Stdout); err != nil {
		p.warn("nvidia-smi topo -p2p r", "%v", err)
	} else {
		r.addP2P(peers)
	}
}
