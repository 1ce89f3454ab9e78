// Package nvml asks NVIDIA's management library for the GPUs, into the model that the
// text of nvidia-smi fills too. It takes cgo; only the helper gangway-nvml has it, so
// that a driver that hangs or crashes takes nothing else with it.
package nvml
