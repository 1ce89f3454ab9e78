//go:build linux

package proc

import (
	"errors"
	"syscall"
	"testing"
)

func TestMapProgram(t *testing.T) {
	if err := MapProgram(); errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOSYS) {
		t.Skipf("this kernel can't: %v", err)
	} else if err != nil {
		t.Error(err)
	}
}
