//go:build linux

package proc

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// BenchmarkSlots prints how many /bin/true a second slots run, and the ratio
// to a loop of posix_spawn in C with as many processes (testdata/spawnloop.c),
// measured in turns: medians, and the smallest and largest ratio of a pair. The
// loop does nothing but start and wait; of "all" it does what slots do but
// for the affinity. Slots do everything: affinity, 30 variables, a directory, a
// process group, usage, and for the output two files a task ("files"), or two a
// slot ("packed"); "forker" is "files" without the assembly.
//
//	go test -run - -bench Slots -benchtime 1x ./nodeagent/proc
//
// The cpu time of the programs and of what starts them is compared, too: it does
// not depend on who else uses the machine as much as the rate does.
//
// SPAWN_TASKS and SPAWN_ROUNDS say how long, SPAWN_PROGRAM what to run.
func BenchmarkSlots(b *testing.B) {
	tasks, rounds := benchNumber(b, "SPAWN_TASKS", 2000), benchNumber(b, "SPAWN_ROUNDS", 5)
	program := "/bin/true"
	if p := os.Getenv("SPAWN_PROGRAM"); p != "" {
		program = p
	}
	loop := filepath.Join(b.TempDir(), "spawnloop")
	if out, err := exec.Command("cc", "-O2", "-Wall", "-o", loop, "testdata/spawnloop.c").CombinedOutput(); err != nil {
		b.Skipf("no C compiler to measure against: %v %s", err, out)
	}
	var env []string
	for i := range 30 {
		env = append(env, fmt.Sprintf("GANGWAY_BENCHMARK_%02d=/a/value/as/long/as/many/are", i))
	}
	for _, slots := range []int{1, 2, 4} {
		b.Run(fmt.Sprintf("slots=%d", slots), func(b *testing.B) {
			for b.Loop() {
				measured, cost := map[string][]float64{}, map[string][]float64{}
				for range rounds {
					for _, how := range []string{"c", "c all", "files", "packed", "forker"} {
						dir := b.TempDir()
						rate, before := 0.0, cpuTime(b)
						switch how {
						case "c":
							rate = spawnLoop(b, env, loop, tasks, slots, "-", program)
						case "c all":
							rate = spawnLoop(b, env, loop, tasks, slots, dir, program)
						default:
							rate = slotRate(b, slots, tasks, SlotCommand{Path: program, Env: env, Dir: dir}, how)
						}
						measured[how] = append(measured[how], rate)
						cost[how] = append(cost[how], float64((cpuTime(b)-before).Microseconds())/float64(tasks))
					}
				}
				b.ReportMetric(0, "ns/op")
				b.ReportMetric(median(measured["c"]), "c/s")
				b.Logf("%d slots, c: %.0f a second, %.0f µs a task", slots, median(measured["c"]), median(cost["c"]))
				for _, how := range []string{"c all", "files", "packed", "forker"} {
					ratios, costs := make([]float64, rounds), make([]float64, rounds)
					for i := range ratios {
						ratios[i] = measured[how][i] / measured["c"][i]
						costs[i] = cost["c"][i] / cost[how][i]
					}
					name := strings.ReplaceAll(how, " ", "-")
					b.ReportMetric(median(measured[how]), name+"/s")
					b.ReportMetric(median(ratios), name+"-ratio")
					b.ReportMetric(median(costs), name+"-cpu-ratio")
					b.Logf("%d slots, %-6s rate %.2f of the loop's (%.2f to %.2f); tasks for its cpu time %.2f (%.2f to %.2f), %.0f µs a task", slots, how,
						median(ratios), slices.Min(ratios), slices.Max(ratios), median(costs), slices.Min(costs), slices.Max(costs), median(cost[how]))
				}
			}
		})
	}
}

func benchNumber(b *testing.B, name string, or int) int {
	n, err := strconv.Atoi(cmp.Or(os.Getenv(name), strconv.Itoa(or)))
	if err != nil || n < 1 {
		b.Fatalf("%s=%q: want a number", name, os.Getenv(name))
	}
	return n
}

// cpuTime is what this process and the children it has waited for have used.
func cpuTime(b *testing.B) time.Duration {
	var sum time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var ru unix.Rusage
		if err := unix.Getrusage(who, &ru); err != nil {
			b.Fatal(err)
		}
		sum += time.Duration(ru.Utime.Nano() + ru.Stime.Nano())
	}
	return sum
}

func median(f []float64) float64 {
	f = slices.Sorted(slices.Values(f))
	return (f[len(f)/2] + f[(len(f)-1)/2]) / 2
}

func spawnLoop(b *testing.B, env []string, loop string, tasks, workers int, dir, program string) float64 {
	c := exec.Command(loop, strconv.Itoa(tasks), strconv.Itoa(workers), dir, program)
	c.Env = env
	out, err := c.Output()
	if err != nil {
		b.Fatalf("spawnloop: %v", err)
	}
	rate, err := strconv.ParseFloat(string(bytes.TrimSpace(out)), 64)
	if err != nil {
		b.Fatal(err)
	}
	return rate
}

// slotRate keeps up to 32 commands queued in each slot.
func slotRate(b *testing.B, slots, tasks int, c SlotCommand, how string) float64 {
	f := NewForker()
	defer f.Close()
	f.StartReaper()
	cpus, err := Affinity(0)
	if err != nil {
		b.Fatal(err)
	}
	all := cpus.Slice()
	var s *Slots
	var mu sync.Mutex
	sent, left := 0, tasks
	done := make(chan struct{})
	open := map[uint64][2]*os.File{}
	create := func(name string) *os.File {
		w, err := os.OpenFile(filepath.Join(c.Dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			b.Error(err)
		}
		return w
	}
	start := func(slot int) { // under mu
		if sent == tasks {
			return
		}
		sent++
		tag, key := uint64(sent), uint64(sent)
		if how == "packed" {
			key = uint64(tasks + 1 + slot)
		}
		w, ok := open[key]
		if !ok {
			w = [2]*os.File{create(fmt.Sprint(key, ".out")), create(fmt.Sprint(key, ".err"))}
			open[key] = w
		}
		n := c
		n.Stdout, n.Stderr = w[0], w[1]
		n.CPUs = topology.NewCPUSet(all[slot%len(all)])
		s.Start(slot, tag, n)
	}
	s, err = f.newSlots(slots, func(ends []SlotEnd) {
		mu.Lock()
		defer mu.Unlock()
		for _, e := range ends {
			if e.Err != nil || e.Status.ExitCode != 0 || e.Status.Signal != 0 {
				b.Errorf("a task failed: %+v", e)
			}
			if w, ok := open[e.Tag]; ok {
				_, _ = w[0].Close(), w[1].Close()
				delete(open, e.Tag)
			}
			start(e.Slot)
			if left--; left == 0 {
				close(done)
			}
		}
	}, how != "forker")
	if err != nil {
		b.Fatal(err)
	}
	from := time.Now()
	mu.Lock()
	for range 32 {
		for slot := range slots {
			start(slot)
		}
	}
	mu.Unlock()
	<-done
	took := time.Since(from)
	s.Close()
	for _, w := range open {
		_, _ = w[0].Close(), w[1].Close()
	}
	return float64(tasks) / took.Seconds()
}
