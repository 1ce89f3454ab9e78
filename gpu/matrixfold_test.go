package gpu

import "testing"

// TestMatrixFoldedBlanks: a table whose tabs have become blanks, broken between
// words, keeps its lists of cpus and NUMA nodes apart.
func TestMatrixFoldedBlanks(t *testing.T) {
	const text = `GPU0 has NVLink
$ nvidia-smi topo -m
        GPU0    GPU1    NIC0    CPU Affinity    NUMA Affinity   GPU NUMA ID
GPU0     X      SYS     PIX     0-55,112-167    0               N/A
GPU1    SYS      X      SYS     56-111,168-223  1               N/A
NIC0    PIX     SYS      X
`
	want := readMatrix(t, text)
	if len(want.Devices) != 3 || want.Devices[1].CPUs.String() != "56-111,168-223" || want.Devices[1].NUMA.String() != "1" {
		t.Fatalf("unbroken: %+v", want.Devices)
	}
	for width := 30; width < 76; width++ {
		got := readMatrix(t, foldWords(text, width))
		for i, d := range want.Devices {
			if i >= len(got.Devices) || got.Devices[i].CPUs.String() != d.CPUs.String() || got.Devices[i].NUMA.String() != d.NUMA.String() {
				t.Errorf("broken at %d: %+v\n%s", width, got.Devices, foldWords(text, width))
				break
			}
		}
	}
}
