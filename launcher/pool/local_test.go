package pool

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func TestLocal(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	p := Local(exe, "GANGWAY_TEST=here")
	defer p.Close()
	node := p.Nodes()[0].Name
	c, err := p.Connect(t.Context(), node)
	must(t, err)
	if got := echo(t, c); !strings.HasSuffix(got, " here") {
		t.Errorf("greeting: %s", got)
	}
	other, err := p.Connect(t.Context(), node)
	must(t, err)
	must(t, c.Close())
	must(t, c.Close())
	echo(t, other)
	must(t, p.Close())
	if _, err := other.Read(make([]byte, 1)); err == nil {
		t.Error("the stream outlived its pool")
	}
	if _, err := p.Connect(t.Context(), node); err == nil {
		t.Error("a closed pool connects")
	}
	if _, err := p.Connect(t.Context(), "elsewhere"); err == nil {
		t.Error("another node was connected")
	}
}

func TestLocalErrors(t *testing.T) {
	p := Local("/no/such/program")
	defer p.Close()
	_, err := p.Connect(t.Context(), p.Nodes()[0].Name)
	var e *Error
	if !errors.As(err, &e) || e.Kind != Install {
		t.Fatalf("%v", err)
	}
	wantText(t, err, "/no/such/program", "no such file")
}

func TestLocalBridgeThatDoesNotEnd(t *testing.T) {
	p := Local("/bin/sleep") // "sleep bridge" fails at once
	c, err := p.Connect(t.Context(), p.Nodes()[0].Name)
	must(t, err)
	if _, err := c.Read(make([]byte, 1)); err == nil {
		t.Error("read something")
	}
	must(t, c.Close())
	if got := c.Stderr(); !strings.Contains(got, "invalid time interval") || !strings.Contains(got, "exit status 1") {
		t.Errorf("stderr: %q", got)
	}
	must(t, p.Close())

	exe, err := os.Executable()
	must(t, err)
	p = Local(exe, "GANGWAY_TEST=stay")
	c, err = p.Connect(t.Context(), p.Nodes()[0].Name)
	must(t, err)
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	must(t, p.Close())
	if took := time.Since(began); took < closeGrace || took > closeGrace+5*time.Second {
		t.Errorf("a bridge that does not end was ended after %v, want %v", took, closeGrace)
	}
}
