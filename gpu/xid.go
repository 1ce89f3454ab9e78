package gpu

import (
	"regexp"
	"slices"
	"strconv"
	"strings"
)

var xidLine = regexp.MustCompile(`NVRM: Xid \(PCI:([0-9A-Fa-f:.]{7,16})\): (\d{1,5})\b`)

// xidKinds bounds the numbers kept of one GPU.
const xidKinds = 64

// ReadXIDs finds the errors that NVIDIA's driver has written into the kernel's log
// since it was loaded last, by PCI address, each number once, sorted. Lines look
// like `NVRM: Xid (PCI:0000:3b:00): 79, pid=..., GPU has fallen off the bus.`
func ReadXIDs(log string) map[string][]uint64 {
	out := map[string][]uint64{}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "NVRM: loading NVIDIA") {
			clear(out) // a fresh start of the driver and of all its GPUs
			continue
		}
		m := xidLine.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		pci, ok := Address(m[1])
		x, err := strconv.ParseUint(m[2], 10, 32)
		if !ok || err != nil || slices.Contains(out[pci], x) || len(out[pci]) == xidKinds || len(out) == maxGPUs && out[pci] == nil {
			continue
		}
		out[pci] = append(out[pci], x)
	}
	for _, xs := range out {
		slices.Sort(xs)
	}
	return out
}
