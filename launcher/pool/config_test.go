package pool

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

func TestParseDestination(t *testing.T) {
	for in, want := range map[string]destination{
		"n1":                     {host: "n1"},
		"me@n1":                  {user: "me", host: "n1"},
		"me@site@n1:2222":        {user: "me@site", host: "n1", port: 2222},
		"n1:22":                  {host: "n1", port: 22},
		"::1":                    {host: "::1"},
		"[::1]:2222":             {host: "::1", port: 2222},
		"[fe80::1%eth0]":         {host: "fe80::1%eth0"},
		"ssh://me@n1.example:1/": {user: "me", host: "n1.example", port: 1},
	} {
		got, err := parseDestination(in)
		if err != nil || got != want {
			t.Errorf("%q: %+v, %v; want %+v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "@n1", "n1:", "n1:0", "n1:65536", "n1:x", "[::1", "[::1]x", "[::1]:", "-oProxyCommand=x", "a b", "me@", "a,b", "n1/x", "-l@n1", "n1;rm"} {
		if got, err := parseDestination(in); err == nil {
			t.Errorf("%q was taken as %+v", in, got)
		} else if !strings.Contains(err.Error(), fmt.Sprintf("%q", in)) {
			t.Errorf("the error does not name %q: %v", in, err)
		}
	}
}

func TestParseInterval(t *testing.T) {
	for in, want := range map[string]time.Duration{"10": 10 * time.Second, "0": 0, "none": 0, "1m30s": 90 * time.Second, "1M30": 90 * time.Second, "2h": 2 * time.Hour, "1w": 168 * time.Hour} {
		if got, err := parseInterval(in); err != nil || got != want {
			t.Errorf("%q: %v, %v; want %v", in, got, err, want)
		}
	}
	for _, in := range []string{"", "-1", "s", "1x", "1 s", "99999999999999999999", "4294967295w", "366d", "360d300h"} {
		if got, err := parseInterval(in); err == nil {
			t.Errorf("%q was taken as %v", in, got)
		}
	}
}

// reader makes a configuration reader over files in a home of the test.
func reader(t testing.TB, files map[string]string) (*configReader, *[]string) {
	t.Helper()
	home := t.TempDir()
	for name, text := range files {
		name = filepath.Join(home, ".ssh", name)
		must(t, os.MkdirAll(filepath.Dir(name), 0o700))
		must(t, os.WriteFile(name, []byte(strings.ReplaceAll(text, "HOME", home)), 0o600))
	}
	warnings := &[]string{}
	return &configReader{home: home, user: "me", roots: []configRoot{{path: filepath.Join(home, ".ssh", "config")}},
		warn: func(w string) { *warnings = append(*warnings, strings.ReplaceAll(w, home, "HOME")) }}, warnings
}

func TestResolve(t *testing.T) {
	t.Setenv("SSH_AUTH_SOCK", "/agent")
	t.Setenv("WHERE", "/keys")
	r, warnings := reader(t, map[string]string{
		"config": `
# comment
Include conf.d/*.conf
Match exec "test -f /x" host other
  User wrong
Match final all
  ServerAliveInterval 60
Match host "n1,x*"
  Port 2201
Host=n1 !n9
  HostName = %h.cluster
  User alice   # why
  ProxyJump gate1,bob@gate2:23
  IdentityFile "~/my keys/%r@%h"
  IdentityFile ${WHERE}/id
  UserKnownHostsFile ~/.ssh/a /b
  ConnectTimeout 1m
Host "n 2" n2
  ProxyCommand nc %h %p
  ProxyJump gate
  IdentityAgent none
Host *
  User late
  StrictHostKeyChecking accept-new
  HostKeyAlgorithms ssh-ed25519,rsa-sha2-256
  IdentitiesOnly yes
`,
		"conf.d/a.conf": "Host n3\n  Include ~/.ssh/deep\nUser early\n",
		"deep":          "AddressFamily inet6\nHost n4\nPort 9\n",
		"conf.d/b.conf": "Match exec true\nPort 1\nMatch localuser you\nPort 2\nMatch localuser me,x originalhost n3\nPort 3\nMatch canonical all\nPort 4\n",
	})
	home := r.home
	want := hostConfig{name: "n1", host: "n1.cluster", user: "alice", port: 2201, family: "tcp", timeout: time.Minute, alive: keepAlive,
		jumps:    []destination{{host: "gate1"}, {user: "bob", host: "gate2", port: 23}},
		identity: []string{home + "/my keys/alice@n1.cluster", "/keys/id"}, explicit: true, only: true, agent: "/agent", strict: acceptNew,
		userHosts: []string{home + "/.ssh/a", "/b"}, hosts: []string{"/etc/ssh/ssh_known_hosts", "/etc/ssh/ssh_known_hosts2"},
		keyAlgos: []string{"ssh-ed25519", "rsa-sha2-256"}}
	got, err := r.resolve(destination{host: "n1"}, time.Second)
	must(t, err)
	if diff := cmp.Diff(want, *got, cmp.AllowUnexported(hostConfig{}, destination{})); diff != "" {
		t.Errorf("n1 (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]string{"HOME/.ssh/conf.d/b.conf:2: Match exec true is not supported: its block is passed over"}, *warnings); diff != "" {
		t.Errorf("warnings (-want +got):\n%s", diff)
	}
	got, err = r.resolve(destination{host: "n1", user: "carol", port: 77}, time.Second)
	must(t, err)
	if got.user != "carol" || got.port != 77 || !strings.HasSuffix(got.identity[0], "/carol@n1.cluster") {
		t.Errorf("what is written with the host must win: %+v", got)
	}
	got, err = r.resolve(destination{host: "n2"}, time.Second)
	must(t, err)
	if got.proxyCmd != "nc n2 22" || got.jumps != nil || got.agent != "" || got.user != "late" || len(got.identity) != len(defaultIdentities) {
		t.Errorf("n2: %+v", got)
	}
	got, err = r.resolve(destination{host: "n3"}, time.Second)
	must(t, err)
	if got.family != "tcp6" || got.user != "early" || got.port != 3 {
		t.Errorf("n3: %+v", got)
	}
}

func TestConfigErrorsNameTheLine(t *testing.T) {
	for text, want := range map[string]string{
		"Host *\n  Port http\n":                "config:2: port: \"http\"",
		"ConnectTimeout soon\n":                "config:1: connecttimeout",
		"Host n1\n\nProxyJump a b@\n":          "",
		"ProxyJump b@\n":                       "config:1: proxyjump: \"b@\"",
		"Include config\n":                     "Include is nested deeper",
		"ServerAliveInterval x\n":              "config:1: serveraliveinterval",
		"Host n2\nPort http\nHost *\nPort 1\n": "",
	} {
		r, _ := reader(t, map[string]string{"config": text})
		_, err := r.resolve(destination{host: "n1"}, time.Second)
		switch {
		case want == "" && err != nil:
			t.Errorf("%q: %v", text, err)
		case want != "" && err == nil:
			t.Errorf("%q was taken", text)
		case want != "":
			wantText(t, err, want)
		}
	}
	if _, err := SSH(SSHConfig{ConfigFile: "/does/not/exist", Binaries: []string{"/bin/sh"}}, []Node{{Name: "n1"}}); err == nil {
		t.Error("a configuration file that isn't there was taken")
	} else {
		wantText(t, err, "n1:", "/does/not/exist")
	}
}

func TestJumpLoop(t *testing.T) {
	s := &site{t: t, home: t.TempDir()}
	must(t, os.MkdirAll(filepath.Join(s.home, ".ssh"), 0o700))
	file := s.path("config")
	must(t, os.WriteFile(file, []byte("Host a\nProxyJump b\nHost b\nProxyJump c,d\nHost c\nProxyJump a\nHost d\nProxyJump a\n"), 0o600))
	exe, err := os.Executable()
	must(t, err)
	_, err = SSH(SSHConfig{ConfigFile: file, Home: s.home, Binaries: []string{exe}}, []Node{{Name: "a"}})
	if err == nil {
		t.Fatal("a loop was taken")
	}
	wantText(t, err, "a jumps through b jumps through c jumps through a")
	// Only the first hop's own configuration leads further.
	if _, err = SSH(SSHConfig{ConfigFile: file, Home: s.home, Binaries: []string{exe}}, []Node{{Name: "x"}}); err != nil {
		t.Error(err)
	}
}

func TestArguments(t *testing.T) {
	exe, err := os.Executable()
	must(t, err)
	for want, c := range map[string]struct {
		cfg   SSHConfig
		nodes []Node
	}{
		"is in the list of hosts twice": {SSHConfig{Binaries: []string{exe}}, []Node{{Name: "a"}, {Name: "a"}}},
		"is no destination":             {SSHConfig{Binaries: []string{exe}}, []Node{{Name: "a b"}}},
		"no program":                    {SSHConfig{}, nil},
		"/no/such/program":              {SSHConfig{Binaries: []string{"/no/such/program"}}, nil},
		"no regular file":               {SSHConfig{Binaries: []string{"/"}}, nil},
		"can't be set on the nodes":     {SSHConfig{Binaries: []string{exe}, Env: []string{"A-B=c"}}, nil},
	} {
		c.cfg.ConfigFile = "none"
		if _, err := SSH(c.cfg, c.nodes); err == nil {
			t.Errorf("taken, though it %q", want)
		} else {
			wantText(t, err, want)
		}
	}
}

// The scripts must be one compound command that dash and bash parse.
func TestScriptsParse(t *testing.T) {
	s := script{mark: "m'k", suffix: "x", args: []string{"it's"}, env: []string{"A=b'c\nd"}, passed: []string{"/a b"},
		binaries: []binary{{machines: []string{"Linux x86_64"}}, {machines: []string{}}}, digests: []string{strings.Repeat("a", 64), strings.Repeat("b", 64)}}
	for _, sh := range []string{"dash", "bash", "sh"} {
		if _, err := lookPath(sh); err != nil {
			continue
		}
		for _, body := range []string{findScript + prepareScript, checkScript, finishScript, discardScript, receiveScript, cleanScript} {
			text := s.build(body, "/d'ir", "/t")
			cmd := exec.Command(sh, "-n")
			cmd.Stdin = strings.NewReader(text)
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Errorf("%s: %v: %s\n%s", sh, err, out, text)
			}
			if !strings.HasPrefix(text, "{ ") || !strings.HasSuffix(text, "\n}\n") {
				t.Error("not one compound command")
			}
		}
	}
}

func TestQuote(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		want := rapid.StringMatching(`[^\x00]*`).Draw(t, "word")
		out, err := exec.Command("sh", "-c", "printf %s "+quote(want)).Output()
		if err != nil || string(out) != want {
			t.Fatalf("%q came out as %q, %v", want, out, err)
		}
	})
}

func FuzzDestination(f *testing.F) {
	for _, s := range []string{"n1", "a@b:1", "[::1]:22", "ssh://x@y:3/", "a,b", "none", "::1%e", "0,0@0"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := parseDestination(s)
		if err != nil {
			return
		}
		again, err := parseDestination(d.String())
		if err != nil || again != d {
			t.Errorf("%q is %+v, written as %q, which is %+v, %v", s, d, d, again, err)
		}
		if list, err := parseJumps(s); err == nil && len(list) > 1 {
			t.Errorf("%q is one destination and several", s)
		}
	})
}

func FuzzInterval(f *testing.F) {
	for _, s := range []string{"10", "1m30s", "none", "1w2d3h", "4294967295w"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if d, err := parseInterval(s); err == nil && (d < 0 || d > 365*24*time.Hour) {
			t.Errorf("%q is %v", s, d)
		}
	})
}

func FuzzConfig(f *testing.F) {
	for _, s := range []string{"Host a\n Port 1\n", "Match host a,b exec \"x\"\nUser u", "Match all", "Include \"a b\" *", "Host", "Match", "Host=\"a", "include", "a=b=c", "Match host", "Host !\n", "\"\"", "Port\n", "Host *\r\nUser x\r\n", "Match\tall#"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if strings.Contains(strings.ToLower(s), "include") {
			s = strings.ReplaceAll(s, "/", "_") // only files of the test
		}
		r, _ := reader(t, map[string]string{"config": s})
		if h, err := r.resolve(destination{host: "n1"}, time.Second); err == nil && (h.host == "" || h.port < 1 || h.port > 65535) {
			t.Errorf("%q gave %+v", s, h)
		}
	})
}

func FuzzKnownHosts(f *testing.F) {
	f.Add("# c\nn1 ssh-ed25519 AAAA\n|1|a|b ssh-rsa x\n@revoked * y\n")
	f.Add("n1 ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrH4SDkrMYfj7Tzp7y0sJkCdZ0Gx0KqNPpGxmpYlUdS\n")
	f.Add("@cert-authority")
	f.Add("|1|AAAA|BBBB ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGrH4SDkrMYfj7Tzp7y0sJkCdZ0Gx0KqNPpGxmpYlUdS")
	f.Fuzz(func(t *testing.T, s string) {
		file := filepath.Join(t.TempDir(), "known_hosts")
		must(t, os.WriteFile(file, []byte(s), 0o600))
		h := &hostConfig{name: "n1", host: "n1", port: 22, userHosts: []string{file}}
		// Whatever is in the file, it must not keep all hosts from being known.
		k, err := loadHostKeys(h, "ssh n1", nil, func(string) {})
		if err != nil {
			t.Fatalf("%q: %v", s, err)
		}
		k.algorithms()
		if k.dir != "" {
			if _, err := os.Stat(k.dir); err == nil {
				t.Error("the cleaned copy was left")
			}
		}
	})
}
