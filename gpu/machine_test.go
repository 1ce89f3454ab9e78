package gpu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// fakeMachine answers programs from a table: "nvidia-smi -L" -> output.
type fakeMachine struct {
	answers map[string]string
	stderr  map[string]string
	errs    map[string]error
	asked   []string
}

func (f *fakeMachine) machine(programs ...string) Machine {
	return Machine{
		Find: func(p string) string {
			for _, x := range programs {
				if x == p {
					return "/bin/" + p
				}
			}
			return ""
		},
		Run: func(_ context.Context, path string, args ...string) (Output, error) {
			call := strings.Join(append([]string{filepath.Base(path)}, args...), " ")
			f.asked = append(f.asked, call)
			out, ok := f.answers[call]
			err := f.errs[call]
			if !ok && err == nil {
				err = errors.New("exit status 1")
			}
			return Output{Stdout: []byte(out), Stderr: []byte(f.stderr[call])}, err
		},
	}
}

// recorded is the matrix of a real node.
func recorded(t testing.TB) []byte {
	t.Helper()
	dir := os.Getenv("GANGWAY_DATA")
	if dir == "" {
		dir = "../../shared/data"
	}
	b, err := os.ReadFile(filepath.Join(dir, "gpu-topo", "h200x8-permuted-nics.txt"))
	if err != nil {
		t.Skipf("no recorded matrix: %v", err)
	}
	return b
}

const xmlHead = "<?xml version=\"1.0\" ?>\n<!DOCTYPE nvidia_smi_log SYSTEM \"nvsmi_device_v12.dtd\">\n<nvidia_smi_log>\n<timestamp>x</timestamp>\n<driver_version>550.54.15</driver_version>\n<cuda_version>12.4</cuda_version>\n<attached_gpus>8</attached_gpus>\n"

// card is what xmlCard writes of a GPU.
type card struct {
	id, name, uuid, mig, migs, memory        string
	correctable, uncorrectable               string
	remapPending, remapFailure, rows         string
	throttle, temperature, power, ecc, extra string
}

func healthy(i int) card {
	return card{id: fmt.Sprintf("00000000:%02X:00.0", 0x19+i), name: "NVIDIA H200", uuid: fmt.Sprintf("GPU-%08d-0000-0000-0000-000000000000", i),
		mig: "Disabled", migs: "None", memory: "143771 MiB", correctable: "0", uncorrectable: "0", remapPending: "No", remapFailure: "No", rows: "0",
		temperature: "31 C", power: "76.25 W", ecc: "Enabled"}
}

func (c card) xml() string {
	throttle := ""
	for _, r := range reasons() {
		active := "Not Active"
		if strings.Contains(" "+c.throttle+" ", " "+r+" ") || r == "gpu_idle" {
			active = "Active"
		}
		throttle += fmt.Sprintf("<clocks_event_reason_%s>%s</clocks_event_reason_%s>\n", r, active, r)
	}
	return fmt.Sprintf(`<gpu id="%s">
	<product_name>%s</product_name>
	<mig_mode><current_mig>%s</current_mig><pending_mig>%s</pending_mig></mig_mode>
	<mig_devices>
		%s
	</mig_devices>
	<uuid>%s</uuid>
	<minor_number>0</minor_number>
	<pci><pci_bus>19</pci_bus><pci_bus_id>%s</pci_bus_id></pci>
	<clocks_event_reasons>%s</clocks_event_reasons>
	<fb_memory_usage><total>%s</total><reserved>535 MiB</reserved><used>0 MiB</used></fb_memory_usage>
	<ecc_mode><current_ecc>%s</current_ecc><pending_ecc>Enabled</pending_ecc></ecc_mode>
	<ecc_errors>
		<volatile>
			<sram_correctable>0</sram_correctable><sram_uncorrectable_parity>0</sram_uncorrectable_parity><sram_uncorrectable_secded>0</sram_uncorrectable_secded>
			<dram_correctable>%s</dram_correctable><dram_uncorrectable>%s</dram_uncorrectable>
		</volatile>
		<aggregate><sram_correctable>7</sram_correctable><dram_uncorrectable>9</dram_uncorrectable></aggregate>
	</ecc_errors>
	<retired_pages><multiple_single_bit_retirement><retired_count>N/A</retired_count></multiple_single_bit_retirement><pending_blacklist>N/A</pending_blacklist></retired_pages>
	<remapped_rows><remapped_row_corr>%s</remapped_row_corr><remapped_row_unc>%s</remapped_row_unc><remapped_row_pending>%s</remapped_row_pending><remapped_row_failure>%s</remapped_row_failure></remapped_rows>
	<temperature><gpu_temp>%s</gpu_temp><gpu_temp_tlimit>56 C</gpu_temp_tlimit></temperature>
	<gpu_power_readings><power_draw>%s</power_draw></gpu_power_readings>%s
</gpu>
`, c.id, c.name, c.mig, c.mig, c.migs, c.uuid, c.id, throttle, c.memory, c.ecc, c.correctable, c.uncorrectable, c.rows, c.rows, c.remapPending, c.remapFailure, c.temperature, c.power, c.extra)
}

func document(cards ...card) string {
	s := xmlHead
	for _, c := range cards {
		s += c.xml()
	}
	return s + "</nvidia_smi_log>\n"
}
