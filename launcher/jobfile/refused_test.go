package jobfile

import (
	"errors"
	"strings"
	"testing"
)

func TestRefusedTask(t *testing.T) {
	const text = "job: j\ntasks:\n  - name: a\n    command: x\n  - name: b\n    nodes: 9\n    command: y\n"
	for _, c := range []struct {
		task         int
		line, column int
		excerpt      string
	}{{0, 3, 5, "name: a"}, {1, 5, 5, "name: b"}, {2, 1, 1, "job: j"}, {-1, 1, 1, "job: j"}} {
		err := Refused("f.yaml", []byte(text), c.task, "can never fit", "ask for less")
		var e *Errors
		if !errors.As(err, &e) || len(e.Problems) != 1 {
			t.Fatalf("task %d: %v", c.task, err)
		}
		p := e.Problems[0]
		if p.File != "f.yaml" || p.Line != c.line || p.Column != c.column || !strings.Contains(p.Excerpt, c.excerpt) || p.Message != "can never fit" || p.Hint != "ask for less" {
			t.Errorf("task %d: %+v", c.task, p)
		}
	}
}
