// Package client is what the command line uses to ask launchers. A launcher
// inside `gangway run` answers its own user on a socket without a file, so that
// nothing is left of one that was killed.
package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"sort"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/auth"
	"gangway/launcher/job"
	"gangway/launcher/sched"
)

// Status is a launcher and why its tasks wait.
type Status struct {
	PID     int       `json:"pid"`
	Job     string    `json:"job"`
	Waiting []Waiting `json:"waiting"` // empty: nothing waits
	Since   time.Time `json:"since"`
}

// Waiting is one run of elements of a task that wait.
type Waiting struct {
	Task   string     `json:"task"`
	Range  job.Range  `json:"range"`
	Reason job.Reason `json:"reason"`
	Text   string     `json:"text"` // the reason as a sentence
}

// prefix of the names in Linux's abstract socket namespace: no file, gone with
// the process. Others can see and connect to it, so Serve checks the peer.
func prefix(uid int) string { return fmt.Sprintf("@gangway-run-%d-", uid) }

// Serve answers `gangway explain` about a job until ctx is done. Where the
// system has no such sockets it does nothing.
func Serve(jobID string) func(ctx context.Context, waiting func() []sched.Waiting) {
	since := time.Now()
	return func(ctx context.Context, waiting func() []sched.Waiting) {
		uid := os.Getuid()
		l, err := net.Listen("unix", prefix(uid)+strconv.Itoa(os.Getpid()))
		if err != nil {
			return
		}
		mux := http.NewServeMux()
		mux.HandleFunc("GET /gangway/v1/explain", func(w http.ResponseWriter, r *http.Request) {
			s := Status{PID: os.Getpid(), Job: jobID, Since: since, Waiting: []Waiting{}}
			for _, x := range waiting() {
				s.Waiting = append(s.Waiting, Waiting{Task: "run", Range: x.Range, Reason: x.Reason, Text: x.Reason.String()})
			}
			w.Header().Set("Content-Type", "application/json")
			_ = json.NewEncoder(w).Encode(s) // a client that went away
		})
		srv := &http.Server{Handler: mux, ReadHeaderTimeout: 5 * time.Second}
		stop := context.AfterFunc(ctx, func() { _ = srv.Close() })
		defer stop()
		_ = srv.Serve(ownUser{l, uid}) // ends with Close
	}
}

// ownUser accepts connections of one user.
type ownUser struct {
	net.Listener
	uid int
}

func (o ownUser) Accept() (net.Conn, error) {
	for {
		c, err := o.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if uid, err := auth.PeerUID(c); err == nil && (uid == o.uid || uid == 0) {
			return c, nil
		}
		_ = c.Close()
	}
}

// Explain asks every launcher of the user on this machine.
func Explain(ctx context.Context, uid int) ([]Status, error) {
	b, err := os.ReadFile("/proc/net/unix")
	if err != nil {
		return nil, fmt.Errorf("looking for this user's launchers: %w", err)
	}
	var out []Status
	var errs []error
	for _, name := range sockets(string(b), prefix(uid)) {
		s, err := ask(ctx, name)
		if err != nil {
			errs = append(errs, fmt.Errorf("launcher %s: %w", strings.TrimPrefix(name, prefix(uid)), err))
			continue
		}
		out = append(out, s)
	}
	sort.Slice(out, func(i, j int) bool { return out[i].PID < out[j].PID })
	return out, errors.Join(errs...)
}

// sockets finds the listening names with the prefix in /proc/net/unix, whose
// last column is the name, with @ for the abstract namespace's zero byte.
func sockets(table, prefix string) []string {
	var out []string
	seen := map[string]bool{}
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) == 8 && strings.HasPrefix(f[7], prefix) && !seen[f[7]] {
			seen[f[7]] = true
			out = append(out, f[7])
		}
	}
	return out
}

func ask(ctx context.Context, name string) (Status, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	t := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", name)
	}}
	defer t.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://launcher/gangway/v1/explain", nil)
	if err != nil {
		return Status{}, err
	}
	resp, err := (&http.Client{Transport: t}).Do(req)
	if err != nil {
		return Status{}, err
	}
	defer resp.Body.Close()
	var s Status
	if err := json.NewDecoder(resp.Body).Decode(&s); err != nil {
		return Status{}, fmt.Errorf("its answer: %w", err)
	}
	return s, nil
}
