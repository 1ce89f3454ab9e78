//go:build !amd64 && !arm64

package proc

import "sync/atomic"

const canWalk = false

func enter(at *command, _ uint64, _ *atomic.Uint32) *command { return at }
