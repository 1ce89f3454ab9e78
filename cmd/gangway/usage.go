package main

import (
	"fmt"
	"strings"

	"gangway/launcher/client"
	"gangway/launcher/job"
)

// usageFacts are a node's usage for facts: what was not sampled is "", which is
// left out.
func usageFacts(u *client.Usage) []string {
	if u == nil {
		return nil
	}
	cpu := ""
	if u.CPUPercent != nil {
		cpu = fmt.Sprintf("%.1f %%", *u.CPUPercent)
	}
	if u.Processes != nil {
		cpu = join(cpu, fmt.Sprintf("%d processes running or ready", *u.Processes))
	}
	var loads []string
	for _, l := range []struct {
		v    *float64
		over string
	}{{u.Load.One, "1m"}, {u.Load.Five, "5m"}, {u.Load.Fifteen, "15m"}} {
		if l.v != nil {
			loads = append(loads, fmt.Sprintf("%.2f over %s", *l.v, l.over))
		}
	}
	return []string{
		"cpu used", cpu,
		"load", strings.Join(loads, ", "),
		"memory used", of(u.MemoryUsed, u.MemoryTotal, ""),
		"disk free", of(u.DiskFree, u.DiskTotal, ""),
		"network", join(of(u.NetReceived, nil, " received"), join(of(u.NetSent, nil, " sent"), sinceBoot(u))),
		"sampled", sampled(u),
	}
}

func sampled(u *client.Usage) string {
	if u.At.IsZero() {
		return ""
	}
	return ago(u.At) + " ago"
}

func sinceBoot(u *client.Usage) string {
	if u.NetReceived == nil && u.NetSent == nil {
		return ""
	}
	return "since the boot"
}

// of writes a part of a whole; either may be unknown.
func of(part, whole *uint64, what string) string {
	switch {
	case part == nil:
		return ""
	case whole == nil:
		return job.Bytes(*part) + what
	}
	return job.Bytes(*part) + " of " + job.Bytes(*whole) + what
}

// join puts a comma between two texts that are there.
func join(a, b string) string {
	if a == "" || b == "" {
		return a + b
	}
	return a + ", " + b
}
