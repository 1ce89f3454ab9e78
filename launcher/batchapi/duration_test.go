package batchapi

import (
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestDuration(t *testing.T) {
	for s, want := range map[string]time.Duration{
		"PT1H": time.Hour, "P7D": 7 * 24 * time.Hour, "P1DT1M": 24*time.Hour + time.Minute, "PT0.5S": 500 * time.Millisecond,
		"PT90M": 90 * time.Minute, "P1W": 7 * 24 * time.Hour, "P1M": 30 * 24 * time.Hour, "PT1M": time.Minute, "P1Y": 365 * 24 * time.Hour,
	} {
		if d, limited, err := parseDuration(s); err != nil || !limited || d != want {
			t.Errorf("%s: %v, %t, %v, want %v", s, d, limited, err, want)
		}
	}
	if d, limited, err := parseDuration(forever); err != nil || limited || d != 0 {
		t.Errorf("forever: %v, %t, %v", d, limited, err)
	}
	for _, s := range []string{"", "P", "PT", "1H", "P1H", "PT1D", "PT1.5H", "P1D1W", "PT1H1H", "P-1D", "-P1D", "PT1", "P1DT", "PTS", "PT1e3S", "PT..S", "pt1h", strings.Repeat("P1D", 99)} {
		if d, _, err := parseDuration(s); err == nil {
			t.Errorf("%q: %v, want an error", s, d)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(1, int64(longest)/100).Draw(t, "d")) * 100
		if got, limited, err := parseDuration(formatDuration(d)); err != nil || !limited || (got-d).Abs() > time.Microsecond {
			t.Fatalf("%v is written as %s and read as %v, %v", d, formatDuration(d), got, err)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"PT1H", forever, "P7D", "PT0.5S", "P1Y2M3W4DT5H6M7.8S", "PT99999999999999999999S"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, limited, err := parseDuration(s)
		if err == nil && (d < 0 || d > longest || !limited && d != 0) {
			t.Errorf("%q: %v", s, d)
		}
	})
}

func TestCommand(t *testing.T) {
	for s, want := range map[string][]string{
		`/bin/sh -c "echo $HOME"`:       {"/bin/sh", "-c", "echo $HOME"},
		`/bin/bash -c 'a "b" c'`:        {"/bin/bash", "-c", `a "b" c`},
		`a\ b c`:                        {"a b", "c"},
		`sh -c "a \"b\" \\ \$x \n"`:     {"sh", "-c", `a "b" \ \$x \n`},
		"a\t b\n":                       {"a", "b"},
		`x ""`:                          {"x", ""},
		`x a'b'"c"`:                     {"x", "abc"},
		`/bin/bash -c "set -e; cd 'x'"`: {"/bin/bash", "-c", "set -e; cd 'x'"},
	} {
		if got, err := splitCommand(s); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", "  ", `""`, `a "b`, "a 'b", `a\`, "a\x00b"} {
		if got, err := splitCommand(s); err == nil {
			t.Errorf("%q: %q, want an error", s, got)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		words := rapid.SliceOfN(rapid.StringMatching(`[a-z '"\\$]*`), 1, 4).Draw(t, "words")
		if words[0] == "" {
			return
		}
		if got, err := splitCommand(joinCommand(words)); err != nil || !slices.Equal(got, words) {
			t.Fatalf("%q is written as %s and read as %q, %v", words, joinCommand(words), got, err)
		}
	})
}

func FuzzCommand(f *testing.F) {
	for _, s := range []string{`/bin/sh -c "echo $HOME"`, `a'b`, `\`, `x "\""`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		words, err := splitCommand(s)
		if err != nil {
			return
		}
		again, err := splitCommand(joinCommand(words))
		if err != nil || !slices.Equal(words, again) {
			t.Errorf("%q: %q, then %q, %v", s, words, again, err)
		}
	})
}
