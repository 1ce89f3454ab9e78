//go:build !cgo

package nvml

import "gangway/gpu"

// Live says that it was built without cgo, which NVML takes.
func Live() gpu.Document {
	return gpu.Document{Error: "this " + gpu.HelperName + " was built without cgo and can't load NVML: build it where there is a C compiler (make build)"}
}
