package launcher

import (
	"fmt"
	"testing"
)

// TestRecalled: what is used stays, what is not goes, and there is a bound.
func TestRecalled(t *testing.T) {
	r := &recalled{}
	if r.get("a") != nil {
		t.Error("something in an empty cache")
	}
	used := &past{}
	r.put("used", used)
	r.put("unused", &past{})
	for i := range 3 * recallLimit {
		r.put(fmt.Sprint(i), &past{})
		if r.get("used") != used {
			t.Fatalf("after %d others what is used is gone", i)
		}
	}
	if r.get("unused") != nil {
		t.Error("what is not used is still there")
	}
	if n := len(r.young) + len(r.old); n > 2*recallLimit {
		t.Errorf("%d entries, at most %d are meant", n, 2*recallLimit)
	}
}
