package shim

import "testing"

func TestWarmUp(t *testing.T) {
	if err := warmUp(); err != nil {
		t.Fatal(err)
	}
}
