//go:build cgo

package nvml

import (
	nv "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gangway/gpu"
)

// Live asks this machine's library, which is opened now: a machine without one
// gets a document that says so.
func Live() gpu.Document { return Ask(nv.New()) }
