// Command up measures a standing launcher, the real program in a process of its
// own, with simulated agents that speak the real protocol over mutual TLS:
//
//   - memory with many nodes, and the time until all have a session;
//   - the processor's time of their heartbeats and usage samples;
//   - the storm of their return after the launcher was killed;
//   - tasks run to their end, and listed by pages with filters over HTTP;
//   - the elements of an array, given to crews that end each at once (-elements).
//
// It prints Markdown. The agents' side runs in this process, on the same machine.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

func main() {
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "up:", err)
		os.Exit(1)
	}
}

func run() error {
	bin := flag.String("gangway", "bin/gangway", "the program to measure")
	nodes := flag.Int("nodes", 1000, "simulated nodes")
	tasks := flag.Int("tasks", 10_000, "tasks of the job that is listed")
	quiet := flag.Duration("quiet", time.Minute, "how long heartbeats are measured")
	elements := flag.Int("elements", 0, "elements of an array to run, and nothing of the rest but the nodes")
	queued := flag.Int("queued", 0, "elements of a second array, which waits behind it")
	recorded := flag.String("recorded", "", "tar.bz2 of a recorded machine's /sys and /proc, that all nodes are (default: this machine)")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "gangway-bench")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	node, err := machine(*recorded, filepath.Join(dir, "machine"))
	if err != nil {
		return err
	}
	fmt.Printf("%d nodes of %d cores each, %d tasks.\n\n| what | figure |\n|---|---|\n", *nodes, len(node.Cores), *tasks)
	l, err := newLauncher(*bin, filepath.Join(dir, "data"))
	if err != nil {
		return err
	}
	if err := l.start(ctx); err != nil {
		return err
	}
	defer l.kill()
	row("launcher without nodes, resident", mib(l.rss()))
	if *elements == 0 {
		if err := idleAgent(ctx, l, dir, *quiet); err != nil {
			return fmt.Errorf("the idle agent: %w", err)
		}
	}
	f := &fleet{l: l, node: node, dir: filepath.Join(dir, "nodes")}
	begin := time.Now()
	if err := f.enroll(ctx, *nodes); err != nil {
		return err
	}
	row("joining (keys, certificates, registry), all nodes", seconds(time.Since(begin)))
	life, end := context.WithCancel(ctx)
	defer f.wg.Wait()
	defer end()
	if err := storm(life, l, f, "first sessions", func() { f.connect(life) }); err != nil {
		return err
	}
	if *elements > 0 {
		return array(ctx, l, *elements, *queued)
	}
	cpu, at := l.cpu(), time.Now()
	select {
	case <-time.After(*quiet):
	case <-ctx.Done():
		return ctx.Err()
	}
	row(fmt.Sprintf("heartbeats and usage over %v, share of a core", *quiet), fmt.Sprintf("%.1f %%", 100*(l.cpu()-cpu).Seconds()/time.Since(at).Seconds()))
	row("launcher with all nodes after that, resident", mib(l.rss()))
	l.kill()
	if err := l.start(ctx); err != nil {
		return err
	}
	if err := storm(life, l, f, "return after kill -9", func() {}); err != nil {
		return err
	}
	return list(ctx, l, *tasks)
}

// storm measures the time until all nodes are up.
func storm(ctx context.Context, l *launcher, f *fleet, what string, begin func()) error {
	cpu, at := l.cpu(), l.started
	if what == "first sessions" {
		at = time.Now()
	}
	begin()
	if err := l.wait(ctx, 2*time.Minute, func() (bool, error) {
		n, err := l.gauge(ctx, `gangway_nodes{state="up"}`)
		return int(n) == len(f.agents), err
	}); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	row(what+", until all nodes are up", seconds(time.Since(at)))
	row(what+", processor's time of the launcher", seconds(l.cpu()-cpu))
	row(what+", resident then", mib(l.rss()))
	row(what+", resident at most", mib(l.peak()))
	return nil
}

func row(what, figure string)        { fmt.Printf("| %s | %s |\n", what, figure) }
func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
func mib(bytes int64) string         { return fmt.Sprintf("%.0f MiB", float64(bytes)/(1<<20)) }
