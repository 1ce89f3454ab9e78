package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// launcher is a `gangway up` in a process of its own.
type launcher struct {
	bin, data, addr string
	http            *http.Client
	cmd             *exec.Cmd
	done            chan struct{}
	started         time.Time
}

func newLauncher(bin, data string) (*launcher, error) {
	// The address outlives the process: a free port is looked for once.
	t, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	l := &launcher{bin: bin, data: data, addr: t.Addr().String()}
	if err := t.Close(); err != nil {
		return nil, err
	}
	l.http = &http.Client{Timeout: time.Minute, Transport: &http.Transport{
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var d net.Dialer
			return d.DialContext(ctx, "unix", filepath.Join(data, "launcher.sock"))
		}}}
	return l, nil
}

// start starts it and waits until it answers.
func (l *launcher) start(ctx context.Context) error {
	log, err := os.OpenFile(l.data+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer log.Close()
	l.http.CloseIdleConnections()
	l.cmd = exec.Command(l.bin, "up", "--no-nodes", "--data", l.data, "--listen", l.addr, "--log-level", "warn")
	l.cmd.Stderr = log
	l.started = time.Now()
	if err := l.cmd.Start(); err != nil {
		return err
	}
	l.done = make(chan struct{})
	go func(c *exec.Cmd, done chan struct{}) { _ = c.Wait(); close(done) }(l.cmd, l.done)
	return l.wait(ctx, 20*time.Second, func() (bool, error) {
		_, err := l.gauge(ctx, "gangway_epoch")
		return err == nil, nil
	})
}

func (l *launcher) kill() {
	_ = l.cmd.Process.Kill()
	<-l.done
}

// wait asks every 20 ms.
func (l *launcher) wait(ctx context.Context, limit time.Duration, ok func() (bool, error)) error {
	late := time.After(limit)
	t := time.NewTicker(20 * time.Millisecond)
	defer t.Stop()
	for {
		yes, err := ok()
		if yes || err != nil {
			return err
		}
		select {
		case <-t.C:
		case <-late:
			return fmt.Errorf("not within %v", limit)
		case <-l.done:
			log, _ := os.ReadFile(l.data + ".log")
			return fmt.Errorf("the launcher ended by itself: %s", log)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// ask returns an answer's body; into, unless it is nil, takes its JSON.
func (l *launcher) ask(ctx context.Context, method, path string, body, into any) ([]byte, error) {
	var in io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		in = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, "http://launcher"+path, in)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Content-Type", "application/json; odata=minimalmetadata")
	resp, err := l.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode >= 300 {
		return nil, fmt.Errorf("%s %s: %s: %s", method, path, resp.Status, b)
	}
	if into != nil {
		err = json.Unmarshal(b, into)
	}
	return b, err
}

// gauge reads one of the launcher's metrics.
func (l *launcher) gauge(ctx context.Context, name string) (float64, error) {
	b, err := l.ask(ctx, http.MethodGet, "/gangway/v1/metrics", nil, nil)
	if err != nil {
		return 0, err
	}
	for s := bufio.NewScanner(bytes.NewReader(b)); s.Scan(); {
		if v, ok := strings.CutPrefix(s.Text(), name+" "); ok {
			return strconv.ParseFloat(v, 64)
		}
	}
	return 0, nil
}

// statusOf reads a size of a process, in bytes.
func statusOf(pid int, field string) int64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(line, field+":"); ok {
			n, _ := strconv.ParseInt(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(v), "kB")), 10, 64)
			return n << 10
		}
	}
	return 0
}

// rss and peak are in bytes.
func (l *launcher) rss() int64         { return statusOf(l.cmd.Process.Pid, "VmRSS") }
func (l *launcher) peak() int64        { return statusOf(l.cmd.Process.Pid, "VmHWM") }
func (l *launcher) cpu() time.Duration { return cpuOf(l.cmd.Process.Pid) }

// cpuOf is the processor's time that a process's living threads have used, in
// steps of what the scheduler counts and not of ticks: /proc/PID/task/TID/schedstat.
func cpuOf(pid int) time.Duration {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", pid))
	var sum time.Duration
	for _, f := range files {
		b, _ := os.ReadFile(f)
		used, _, _ := strings.Cut(string(b), " ")
		ns, _ := strconv.ParseInt(used, 10, 64)
		sum += time.Duration(ns)
	}
	return sum
}
