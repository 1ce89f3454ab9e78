package shim

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"gangway/mpi"
	"gangway/mpi/preflight"
	"gangway/nodeagent/wire"
)

// msgPreflight is both ways: preflightMsg.
const msgPreflight = 'p'

const (
	preflightOff  = "off"
	preflightFull = "full"

	// answerLimit is how long the primary waits for its members' facts; their
	// dials end before it.
	answerLimit = 10 * time.Second
	// primaryWait is how long a member that can't join waits before it looks
	// whether it reaches the primary at all.
	primaryWait = 2 * time.Second
	// shownErrors is how many findings a failure names.
	shownErrors = 8
)

// preflightMsg is what members say to each other about the checks; one field
// is set.
type preflightMsg struct {
	Ask     *preflightAsk     `json:"ask,omitempty"`     // primary
	Facts   *preflight.Facts  `json:"facts,omitempty"`   // member
	Measure *preflightMeasure `json:"measure,omitempty"` // primary
	Pair    *preflight.Pair   `json:"pair,omitempty"`    // member
	Env     []string          `json:"env,omitempty"`     // primary: the ranks get this too
}

type preflightAsk struct {
	Helpers []string `json:"helpers,omitempty"` // absolute paths that must be there
}

type preflightMeasure struct {
	With int `json:"with"`
}

// checks is the state of the checks before the start.
type checks struct {
	reached <-chan gangFacts // nil: a gang of one
	done    bool

	// Of the primary.
	started bool
	asked   time.Time
	facts   map[int]preflight.Facts
	got     map[int]time.Time
	judged  bool
	rounds  [][][2]int // of full, still to come
	open    map[[2]int]bool
	pairs   []preflight.Pair
	found   []preflight.Finding
	round   int
}

func (s *shim) preflightMode() string {
	m := s.a.GetPreflight()
	switch {
	case m == preflightOff || s.a.GetPlanOnly():
		return preflightOff
	case m == preflightFull:
		return m
	case s.a.GetNodeCount() <= 1 && s.a.GetMpi() == string(mpi.None):
		// A lone program says by itself what it lacks; thousands of them in an
		// array should not pay for the question.
		return preflightOff
	}
	return "fast"
}

// beginChecks starts what needs the other members' addresses. It runs beside
// the mesh's coming together.
func (s *shim) beginChecks() {
	mode := s.preflightMode()
	if mode == preflightOff || s.mesh == nil {
		return
	}
	ctx, cancel := context.WithCancel(context.Background())
	s.wg.Go(func() {
		select {
		case <-s.done:
		case <-ctx.Done():
		}
		cancel()
	})
	s.checks.reached = s.reach(ctx, s.peers, mode == preflightFull)
	if !s.primary() {
		s.after(primaryWait, s.lookForPrimary)
	}
}

// lookForPrimary tells a firewall from a slow node: joining alone would try
// until the launch's deadline.
func (s *shim) lookForPrimary() {
	if s.gang.joined || s.ending || s.finished || len(s.peers) == 0 {
		return
	}
	p := s.peers[0]
	s.wg.Go(func() {
		ctx, cancel := context.WithTimeout(context.Background(), dialLimit)
		defer cancel()
		d := dialPeer(ctx, 0, p)
		s.post(func() {
			if d.Err == "" || s.gang.joined || s.ending {
				return
			}
			f := preflight.Finding{Check: "connect", Nodes: []string{s.nodeName()},
				Message: fmt.Sprintf("no TCP connection to %s (%s), where the gang comes together: %s", p.GetName(), d.Addr, d.Err)}
			s.end(failed(wire.FailureCode_FAILURE_PREFLIGHT, s.nodeName(), "preflight: "+f.String(),
				"look whether a firewall or a route keeps these nodes apart: every TCP port between the gang's nodes is needed"), false)
		})
	})
}

// checked says whether the start may go on, and begins the checks if they have
// not been begun; at their end joined is called again.
func (s *shim) checked() bool {
	if s.checks.done || s.preflightMode() == preflightOff {
		return true
	}
	if !s.checks.started {
		s.checks.started = true
		s.checkGangNow()
	}
	return s.via != "" // it has started already, see launch
}

// checkGangNow asks all members.
func (s *shim) checkGangNow() {
	c := &s.checks
	c.asked, c.facts, c.got = time.Now(), map[int]preflight.Facts{}, map[int]time.Time{}
	ask := &preflightAsk{Helpers: s.helpers()}
	s.sayChecks(toEveryone, preflightMsg{Ask: ask})
	s.answerChecks(ask)
	s.after(answerLimit, s.judgeGang)
}

// helpers are the programs beside mpirun that it starts on each node.
func (s *shim) helpers() []string {
	d := s.prep.mpi
	if d.via != viaMPIRun || len(s.peers) < 2 {
		return nil
	}
	names := []string{"hydra_pmi_proxy", "hydra_bstrap_proxy"}
	if d.launcher.Flavour == mpi.OpenMPI {
		names = []string{"orted"}
		if d.launcher.Version.Major >= 5 {
			names = []string{"prted"}
		}
	}
	var out []string
	for _, n := range names {
		path := filepath.Join(filepath.Dir(d.launcher.Path), n)
		if _, err := os.Stat(path); err == nil {
			out = append(out, path)
		}
	}
	return out
}

// toEveryone addresses all other members.
const toEveryone = -1

func (s *shim) sayChecks(to int, m preflightMsg) {
	if s.mesh == nil {
		return
	}
	b, err := json.Marshal(m)
	if err != nil {
		s.notice(true, "%s: a message about the checks can't be written: %v", s.nodeName(), err)
		return
	}
	b = append([]byte{msgPreflight}, b...)
	s.whenJoined(func() {
		// Who is not reached does not answer, which is noticed.
		if to == toEveryone {
			_ = s.mesh.Broadcast(b)
			return
		}
		_ = s.mesh.Send(to, b)
	})
}

// heardChecks takes a member's or the primary's word.
func (s *shim) heardChecks(from int, body []byte) {
	var m preflightMsg
	if json.Unmarshal(body, &m) != nil || s.preflightMode() == preflightOff {
		return
	}
	switch {
	case m.Facts != nil && s.primary():
		m.Facts.Index = from
		s.gotFacts(*m.Facts)
	case m.Pair != nil && s.primary():
		s.gotPair(*m.Pair)
	case s.primary() || from != 0:
	case m.Ask != nil:
		s.answerChecks(m.Ask)
	case m.Measure != nil:
		s.measure(m.Measure.With)
	case m.Env != nil:
		s.prep.env = mergeEnv(s.prep.env, m.Env)
	}
}

// answerChecks puts this node's facts together and gives them to the primary.
func (s *shim) answerChecks(ask *preflightAsk) {
	reached, local := s.checks.reached, s.prep.facts
	s.wg.Go(func() {
		var f preflight.Facts
		select {
		case f = <-local:
		case <-s.done:
			return
		}
		for _, h := range ask.Helpers {
			if fi, err := os.Stat(h); err != nil || fi.Mode()&0o111 == 0 {
				f.Helpers = append(f.Helpers, h)
			}
		}
		if reached != nil {
			select {
			case g := <-reached:
				f.Names, f.Dials = g.names, g.dials
			case <-s.done:
				return
			}
		}
		s.post(func() {
			f.Sent = time.Now()
			if s.primary() {
				s.gotFacts(f)
				return
			}
			s.sayChecks(0, preflightMsg{Facts: &f})
		})
	})
}

func (s *shim) gotFacts(f preflight.Facts) {
	c := &s.checks
	if c.judged || c.facts == nil {
		return
	}
	c.facts[f.Index], c.got[f.Index] = f, time.Now()
	if len(c.facts) >= len(s.peers) {
		s.judgeGang()
	}
}

// judgeGang looks at what is known: of all, or of those that answered in time.
func (s *shim) judgeGang() {
	c := &s.checks
	if c.judged || c.facts == nil || s.ending || s.finished {
		return
	}
	c.judged = true
	plan := preflight.Plan{
		Flavour: s.prep.mpi.launcher.Flavour, Via: s.prep.mpi.via, NeedNames: needNames(s.peers), Full: s.preflightMode() == preflightFull,
		Bound: s.a.GetBind() != "none", Oversubscribe: s.a.GetOversubscribe() || s.a.GetShared(), Env: s.prep.env, Asked: c.asked, Got: c.got,
	}
	var gang []preflight.Facts
	for _, p := range s.peers {
		if f, ok := c.facts[int(p.GetIndex())]; ok {
			f.Node = p.GetName()
			gang = append(gang, f)
		} else {
			plan.Silent = append(plan.Silent, p.GetName())
		}
	}
	c.found = preflight.Check(gang, plan)
	if s.via == "" {
		for member, env := range preflight.Settings(gang, plan) {
			if member == 0 {
				s.prep.env = mergeEnv(s.prep.env, env)
				continue
			}
			s.sayChecks(member, preflightMsg{Env: env})
		}
	}
	if plan.Full && len(s.peers) > 1 && !hasErrors(c.found) {
		c.rounds = preflight.Rounds(len(s.peers), measureRounds)
		s.nextRound()
		return
	}
	s.endChecks()
}

func hasErrors(found []preflight.Finding) bool {
	return slices.ContainsFunc(found, func(f preflight.Finding) bool { return f.Level == preflight.Error })
}

// endChecks tells what was found and lets the start go on, or ends the gang.
func (s *shim) endChecks() {
	c := &s.checks
	c.done = true
	var bad []preflight.Finding
	for _, f := range c.found {
		if f.Level == preflight.Error && s.via == "" {
			bad = append(bad, f)
			continue
		}
		s.notice(f.Level != preflight.Note, "preflight: %s", f)
	}
	if len(bad) > 0 {
		s.end(preflightFailure(bad), false)
		return
	}
	s.notice(false, "preflight: nodes checked: %d, findings: %d, in %v", len(c.facts), len(c.found), time.Since(c.asked).Round(100*time.Microsecond))
	if text := preflight.Summary(c.pairs, s.memberName); text != "" {
		s.notice(false, "preflight: %s", text)
	}
	if s.via == "" {
		s.joined(nil)
	}
}

func (s *shim) memberName(index int) string { return s.nameOf(uint32(index)) }

// preflightFailure names the nodes of the first finding, and says them all.
func preflightFailure(bad []preflight.Finding) *wire.Failure {
	var lines []string
	for i, f := range bad {
		if i == shownErrors {
			lines = append(lines, fmt.Sprintf("and %d findings more", len(bad)-i))
			break
		}
		hint := f.Hint
		if i == 0 {
			f.Hint = "" // the failure's
		}
		lines = append(lines, f.String())
		f.Hint = hint
	}
	return failed(wire.FailureCode_FAILURE_PREFLIGHT, strings.Join(bad[0].Nodes, ","), "preflight: "+strings.Join(lines, "\n"), bad[0].Hint)
}

// reason is an error's innermost words: "connection refused" rather than the
// addresses that were just said.
func reason(err error) string {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.Err
	}
	var no syscall.Errno
	if errors.As(err, &no) {
		return no.Error()
	}
	if errors.Is(err, os.ErrDeadlineExceeded) || errors.Is(err, context.DeadlineExceeded) {
		return "no answer in time"
	}
	var op *net.OpError
	if errors.As(err, &op) && op.Timeout() {
		return "no answer in time"
	}
	return err.Error()
}
