package gpu

import (
	"fmt"
	"slices"

	"gangway/topology"
)

// Problem says in words why a GPU in this state should not be used, and what to
// do; "" if nothing is known against it.
//
// XIDs are what the kernel has logged since the driver was loaded. A GPU may have been
// reset since: one about memory counts only until the driver says that no error
// and no repair is left.
func Problem(h topology.Health) string {
	yes := func(b *bool) bool { return b != nil && *b }
	no := func(b *bool) bool { return b != nil && !*b }
	none := func(n *uint64) bool { return n != nil && *n == 0 }
	const reset = "drain the node and reset the GPU (nvidia-smi --gpu-reset) or reboot"
	clean := none(h.Uncorrected) && no(h.RemapPending) && no(h.RemapFailed)
	has := func(xids ...uint64) uint64 {
		for _, x := range xids {
			if slices.Contains(h.XIDs, x) {
				return x
			}
		}
		return 0
	}
	switch {
	case has(79) != 0:
		return "it fell off the bus (XID 79): reboot the node; if it comes back, check its power, riser and seat"
	case yes(h.RemapFailed):
		return "a faulty memory row could not be replaced: have the GPU replaced"
	case has(64) != 0 && !clean:
		return "a repair of its memory could not be recorded (XID 64): " + reset + "; if it comes back, have the GPU replaced"
	case yes(h.RemapPending):
		return "its memory waits to be repaired: " + reset
	case h.Uncorrected != nil && *h.Uncorrected > 0:
		return fmt.Sprintf("%d uncorrectable ECC errors since the driver was loaded: %s", *h.Uncorrected, reset)
	case has(95, 48, 94, 63) != 0 && !clean:
		x := has(95, 48, 94, 63)
		return fmt.Sprintf("the driver has logged %s (XID %d): %s", map[uint64]string{
			95: "an uncontained ECC error", 48: "a double-bit ECC error", 94: "a contained ECC error", 63: "a repair of its memory that is not yet done",
		}[x], x, reset)
	case has(74) != 0:
		return "an NVLink failed (XID 74): " + reset + "; if it comes back, check the NVLink bridge or switch"
	case slices.Contains(h.Throttle, HWThermalSlowdown):
		return "its clock is held down because it is too hot: check its cooling"
	case slices.Contains(h.Throttle, HWPowerBrake):
		return "its clock is held down by the power supply's brake: check the power of the node"
	case slices.Contains(h.Throttle, HWSlowdown):
		return "the hardware holds its clock down: check cooling and power of the node"
	}
	return ""
}

// recoveryProblem puts the driver's own advice (NVML_FI_DEV_GET_GPU_RECOVERY_ACTION) in
// words. action is 0 none, 1 reset, 2 reboot, 3 drain peers, 4 drain and reset.
func recoveryProblem(action int) string {
	switch action {
	case 1:
		return "its driver asks for a reset: drain the node and run nvidia-smi --gpu-reset"
	case 2:
		return "its driver asks for a reboot of the node"
	case 3:
		return "its driver asks to end everything that uses it from other GPUs"
	case 4:
		return "its driver asks to drain the node and to reset the GPU"
	}
	return ""
}

// WithRecovery is the problem of a GPU whose driver advises an action, see
// recoveryProblem; what is known by name goes first, as it says why.
func WithRecovery(h topology.Health, action int) string {
	if p := Problem(h); p != "" {
		return p
	}
	return recoveryProblem(action)
}

// Reasons why a clock is held down, in the order of NVML's bits, by the names
// that nvidia-smi's XML has for them.
const (
	HWSlowdown        = "hw_slowdown"
	HWThermalSlowdown = "hw_thermal_slowdown"
	HWPowerBrake      = "hw_power_brake_slowdown"
)

func reasons() []string {
	return []string{"gpu_idle", "applications_clocks_setting", "sw_power_cap", HWSlowdown, "sync_boost",
		"sw_thermal_slowdown", HWThermalSlowdown, HWPowerBrake, "display_clocks_setting", "board_limit", "reliability"}
}

// ThrottleReasons names the bits of nvmlDeviceGetCurrentClocksEventReasons. An
// idle GPU's is none: nothing holds it down.
func ThrottleReasons(bits uint64) []string {
	var out []string
	for i, name := range reasons() {
		if bits&(1<<i) != 0 && i > 0 {
			out = append(out, name)
		}
	}
	return out
}
