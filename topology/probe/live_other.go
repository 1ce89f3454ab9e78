//go:build !linux

package probe

import (
	"errors"
	"io"
	"os"
	"runtime"

	"gangway/topology"
)

// Live describes this machine as far as the Go runtime knows it: cpus without
// their topology, memory where the system says it, interfaces and addresses.
func Live() (topology.Node, error) {
	n := topology.Node{OS: runtime.GOOS, Arch: runtime.GOARCH}
	n.Hostname, _ = os.Hostname()
	for cpu := range runtime.NumCPU() {
		n.Online = n.Online.Add(cpu)
		n.Cores = append(n.Cores, topology.Core{Index: cpu, Package: 0, NUMA: 0, PUs: topology.NewCPUSet(cpu)})
	}
	n.Allowed = n.Online
	n.AllowedMems = topology.NewCPUSet(0)
	n.Memory.Total, n.Memory.Available = systemMemory()
	n.Packages = []topology.Package{{Index: 0, CPUs: n.Online}}
	n.NUMA = []topology.NUMANode{{Index: 0, CPUs: n.Online, Memory: n.Memory.Total}}
	n.Warnings = []string{"core and NUMA topology is not probed on " + runtime.GOOS + ": each cpu is taken for a core"}
	var warning string
	if n.Interfaces, warning = liveInterfaces(); warning != "" {
		n.Warnings = append(n.Warnings, warning)
	}
	return n, nil
}

// Record needs sysfs, which only Linux has.
func Record(io.Writer, ...func(Source)) error {
	return errors.New("machines are recorded on Linux only, not on " + runtime.GOOS)
}
