package probe

import (
	"os"
	"runtime"

	"golang.org/x/sys/unix"

	"gangway/topology"
)

// Live probes this machine as this process sees it. It takes a few
// milliseconds and starts nothing.
func Live() (topology.Node, error) {
	ifaces, warning := liveInterfaces()
	n, err := Node(Source{
		Sys: os.DirFS("/sys"), Proc: os.DirFS("/proc"), Root: os.DirFS("/"),
		Interfaces: ifaces, Arch: runtime.GOARCH, ShmBytes: shmFree(),
	})
	if err != nil {
		return n, err
	}
	if warning != "" {
		n.Warnings = append(n.Warnings, warning)
	}
	if n.Hostname == "" {
		n.Hostname, _ = os.Hostname()
	}
	return n, nil
}

func shmFree() *uint64 {
	var st unix.Statfs_t
	if err := unix.Statfs("/dev/shm", &st); err != nil {
		return nil
	}
	free := st.Bavail * uint64(st.Bsize)
	return &free
}
