//go:build cgo && linux

package main

import (
	nv "github.com/NVIDIA/go-nvml/pkg/nvml"

	"gangway/gpu"
	"gangway/gpu/nvml"
)

func ask() gpu.Document { return nvml.Ask(nv.New()) }
