// Package gpufake makes what nvidia-smi says of GPUs that are not there: a
// program for tests that answers as the real one does.
package gpufake

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"gangway/topology"
)

// Machine is an nvidia-smi's view of a node.
type Machine struct {
	GPUs   []topology.GPU
	Matrix string // of topo -m; "": it fails
	P2P    string // of topo -p2p r; "": it fails
}

// XML is `nvidia-smi -q -x` of the GPUs.
func (m Machine) XML() string {
	var b strings.Builder
	driver := ""
	if len(m.GPUs) > 0 {
		driver = m.GPUs[0].Driver
	}
	fmt.Fprintf(&b, "<?xml version=\"1.0\" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n<nvidia_smi_log>\n\t<driver_version>%s</driver_version>\n\t<attached_gpus>%d</attached_gpus>\n", driver, len(m.GPUs))
	for _, g := range m.GPUs {
		h := g.Health
		fmt.Fprintf(&b, "\t<gpu id=\"0000%s\">\n\t\t<product_name>%s</product_name>\n\t\t<uuid>%s</uuid>\n\t\t<minor_number>0</minor_number>\n", strings.ToUpper(g.PCI), g.Name, g.UUID)
		mode := "Disabled"
		if g.MIGMode {
			mode = "Enabled"
		}
		fmt.Fprintf(&b, "\t\t<mig_mode><current_mig>%s</current_mig></mig_mode>\n\t\t<mig_devices>\n", mode)
		for _, i := range g.MIG {
			fmt.Fprintf(&b, "\t\t\t<mig_device><index>%d</index><gpu_instance_id>9</gpu_instance_id><fb_memory_usage><total>%s</total></fb_memory_usage></mig_device>\n", i.Index, mib(i.Memory))
		}
		fmt.Fprintf(&b, "\t\t</mig_devices>\n\t\t<pci><pci_bus_id>0000%s</pci_bus_id></pci>\n\t\t<fb_memory_usage><total>%s</total></fb_memory_usage>\n", strings.ToUpper(g.PCI), mib(g.Memory))
		fmt.Fprintf(&b, "\t\t<ecc_mode><current_ecc>%s</current_ecc></ecc_mode>\n", yes(h.ECC, "Enabled", "Disabled"))
		fmt.Fprintf(&b, "\t\t<ecc_errors><volatile><sram_correctable>0</sram_correctable><sram_uncorrectable>0</sram_uncorrectable><dram_correctable>%s</dram_correctable><dram_uncorrectable>%s</dram_uncorrectable></volatile></ecc_errors>\n", number(h.Corrected), number(h.Uncorrected))
		fmt.Fprintf(&b, "\t\t<remapped_rows><remapped_row_corr>%s</remapped_row_corr><remapped_row_unc>0</remapped_row_unc><remapped_row_pending>%s</remapped_row_pending><remapped_row_failure>%s</remapped_row_failure></remapped_rows>\n",
			number(h.RetiredPages), yes(h.RemapPending, "Yes", "No"), yes(h.RemapFailed, "Yes", "No"))
		b.WriteString("\t\t<clocks_event_reasons>\n\t\t\t<clocks_event_reason_gpu_idle>Active</clocks_event_reason_gpu_idle>\n")
		for _, r := range h.Throttle {
			fmt.Fprintf(&b, "\t\t\t<clocks_event_reason_%s>Active</clocks_event_reason_%s>\n", r, r)
		}
		b.WriteString("\t\t</clocks_event_reasons>\n")
		if h.TemperatureC != nil {
			fmt.Fprintf(&b, "\t\t<temperature><gpu_temp>%d C</gpu_temp></temperature>\n", *h.TemperatureC)
		}
		if h.PowerMilliW != nil {
			fmt.Fprintf(&b, "\t\t<gpu_power_readings><power_draw>%.2f W</power_draw></gpu_power_readings>\n", float64(*h.PowerMilliW)/1000)
		}
		b.WriteString("\t</gpu>\n")
	}
	return b.String() + "</nvidia_smi_log>\n"
}

func mib(n *uint64) string {
	if n == nil {
		return "N/A"
	}
	return fmt.Sprintf("%d MiB", *n>>20)
}

func number(n *uint64) string {
	if n == nil {
		return "N/A"
	}
	return fmt.Sprint(*n)
}

func yes(b *bool, on, off string) string {
	switch {
	case b == nil:
		return "N/A"
	case *b:
		return on
	}
	return off
}

// List is `nvidia-smi -L`.
func (m Machine) List() string {
	var b strings.Builder
	for _, g := range m.GPUs {
		fmt.Fprintf(&b, "GPU %d: %s (UUID: %s)\n", g.Index, g.Name, g.UUID)
		for _, i := range g.MIG {
			fmt.Fprintf(&b, "  MIG %-14s Device %2d: (UUID: %s)\n", i.Profile, i.Index, i.UUID)
		}
	}
	return b.String()
}

// Install writes the program dir/nvidia-smi, in place of an earlier one at once: a shell
// script that answers what the product asks.
func (m Machine) Install(t testing.TB, dir string) {
	t.Helper()
	for name, text := range map[string]string{"xml": m.XML(), "list": m.List(), "matrix": m.Matrix, "p2p": m.P2P} {
		write(t, filepath.Join(dir, "smi."+name), text, 0o600)
	}
	Script(t, dir, "nvidia-smi", `d=$(dirname "$0")
case "$*" in
"-q -x") cat "$d/smi.xml" ;;
"-L") cat "$d/smi.list" ;;
"topo -m") [ -s "$d/smi.matrix" ] && cat "$d/smi.matrix" ;;
"topo -p2p r") [ -s "$d/smi.p2p" ] && cat "$d/smi.p2p" ;;
*) echo "Invalid combination of input arguments. Please run 'nvidia-smi -h' for help."; exit 1 ;;
esac
`)
}

// Script writes a program for /bin/sh, in place of an earlier one at once.
func Script(t testing.TB, dir, name, text string) {
	t.Helper()
	write(t, filepath.Join(dir, name), "#!/bin/sh\n"+text, 0o700)
}

// write replaces a file at once, for a program may be reading it.
func write(t testing.TB, path, text string, mode os.FileMode) {
	t.Helper()
	if err := os.WriteFile(path+".new", []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}
