package probe

import (
	"strings"
	"testing"
)

// TestHwlocVersion1 has what only old files have: no NUMA node where the kernel
// told of none, and an address that is there twice.
func TestHwlocVersion1(t *testing.T) {
	n, err := ReadHwlocXML(strings.NewReader(`<topology><object type="Machine" os_index="0" cpuset="0x3" local_memory="4096">
<object type="Socket" os_index="0" cpuset="0x3">
<object type="Core" os_index="0" cpuset="0x1"><object type="PU" os_index="0" cpuset="0x1"/></object>
<object type="Core" os_index="1" cpuset="0x2"><object type="PU" os_index="1" cpuset="0x2"/></object></object>
<object type="Bridge" os_index="0" bridge_type="0-1" depth="0" bridge_pci="0000:[00-06]">
<object type="PCIDev" os_index="1" pci_busid="0000:04:00.0" pci_type="0107 [8086:1d6b] [0000:0000] 05"/>
<object type="PCIDev" os_index="1" pci_busid="0000:04:00.0" pci_type="0207 [15b3:1013] [0000:0000] 05">
<object type="OSDev" name="mlx5_0" osdev_type="3"/></object></object>
</object></topology>`))
	if err != nil {
		t.Fatal(err)
	}
	if len(n.NUMA) != 1 || n.NUMA[0].CPUs.String() != "0-1" || n.NUMA[0].Memory == nil || *n.NUMA[0].Memory != 4096 || n.Cores[1].NUMA != 0 {
		t.Errorf("NUMA nodes %+v of %+v", n.NUMA, n.Cores)
	}
	if len(n.HCAs) != 1 || n.HCAs[0].PCI != "0000:04:00.0" || len(n.PCI) != 1 || len(n.Warnings) != 1 {
		t.Errorf("HCAs %+v, PCI %+v, warnings %q", n.HCAs, n.PCI, n.Warnings)
	}
}
