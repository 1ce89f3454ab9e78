//go:build linux

package shim

import (
	"strings"
	"testing"

	"gangway/nodeagent/wire"
)

// TestHints: what is advised about a missing program is what the job's kind has.
func TestHints(t *testing.T) {
	for _, session := range []bool{true, false} {
		for name, program := range map[string]string{"on PATH": "no-such-program-here", "by its path": "/no/such/program"} {
			s := &shim{a: &wire.Assignment{Session: session}}
			path, err := lookProgram(program, t.TempDir(), []string{"PATH=/usr/bin:/bin"})
			if err == nil {
				err = checkProgram(path)
			}
			f := s.hinted(programFailure("n", err))
			if got := strings.Contains(f.GetHint(), "--bcast"); got != session || strings.Count(f.GetHint(), ",") < 1 {
				t.Errorf("%s, session %t: %q", name, session, f.GetHint())
			}
		}
	}
}
