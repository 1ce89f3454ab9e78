//go:build !cgo || !linux

package main

import "gangway/gpu"

func ask() gpu.Document {
	return gpu.Document{Error: "this gangway-nvml was built without cgo, or not for Linux, and can't load NVML: build it with a C compiler (make build)"}
}
