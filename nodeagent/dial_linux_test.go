package nodeagent

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"connectrpc.com/connect"

	"gangway/nodeagent/wire"
	"gangway/nodeagent/wire/link"
	"gangway/nodeagent/wire/wireconnect"
)

// refuser is a launcher that opens no session.
type refuser struct{}

func (refuser) Session(_ context.Context, s *connect.BidiStream[wire.AgentMessage, wire.LauncherMessage]) error {
	if _, err := s.Receive(); err != nil {
		return err
	}
	return s.Send(&wire.LauncherMessage{M: &wire.LauncherMessage_Welcome{Welcome: &wire.Welcome{Protocol: wire.Version, Error: "not you"}}})
}

// TestRefusalsArePaused: a launcher that takes connections and refuses sessions is
// asked less and less often.
func TestRefusalsArePaused(t *testing.T) {
	const tries = 4
	calls := make(chan time.Time, 100)
	cfg := agentConfig(tempBase(t))
	cfg.Standing = true
	cfg.Dial = func(ctx context.Context) (net.Conn, error) {
		calls <- time.Now()
		ours, theirs := net.Pipe()
		mux := http.NewServeMux()
		mux.Handle(wireconnect.NewLauncherHandler(refuser{}, link.Uncompressed()))
		go func() { _ = link.Serve(ctx, theirs, mux) }()
		return ours, nil
	}
	startTestAgent(t, cfg)
	var last time.Time
	for i := range tries {
		at := <-calls
		if least := dialFirst << i / 2; i > 0 && at.Sub(last) < least {
			t.Errorf("try %d came %v after the one before, want %v or later", i, at.Sub(last), least)
		}
		last = at
	}
}
