package probe

import (
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/google/go-cmp/cmp"
)

const ttarExample = `# Archive created by ttar
Directory: sys/class/net
Mode: 755
# ttar - - -
Path: sys/class/net/eth0
SymlinkTo: ../../devices/pci/net/eth0
# ttar - - -
Path: sys/devices/pci/net/eth0/name
Lines: 2
a
bEOF
Mode: 644
Path: sys/devices/pci/net/eth0/zero
Lines: 1
xNULLBYTEy\NULLBYTE\EOF
Mode: 644
Path: sys/devices/pci/net/eth0/empty
Lines: 0
Mode: 644
`

func TestTTAR(t *testing.T) {
	fsys, warnings, err := ReadTTAR(strings.NewReader(ttarExample))
	if err != nil || len(warnings) > 0 {
		t.Fatal(err, warnings)
	}
	if err := fstest.TestFS(fsys, "sys/devices/pci/net/eth0/empty"); err != nil {
		t.Error(err)
	}
	sys, err := fs.Sub(fsys, "sys")
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]string{}
	for _, name := range []string{"name", "zero", "empty"} {
		b, err := fs.ReadFile(sys, "class/net/eth0/"+name)
		if err != nil {
			t.Error(err)
		}
		got[name] = string(b)
	}
	if diff := cmp.Diff(map[string]string{"name": "a\nb", "zero": "x\x00yNULLBYTEEOF\n", "empty": ""}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	link, err := fs.ReadLink(sys, "class/net/eth0")
	if err != nil || link != "../../devices/pci/net/eth0" {
		t.Errorf("link: %q, %v", link, err)
	}
}

func TestTTARDefects(t *testing.T) {
	for _, test := range []struct{ text, warning string }{
		{"Path: a\nLines: 3\nx\n", "line 2: a ends 2 lines early"},
		{"Path: a\nLines: many\nMode: 644\n", `line 2: expected a number of lines, found "many"`},
		{"Lines: 1\nx\n", `line 1: a file that can't be at ""`},
		{"what is this\n", "line 1: expected Path"},
		{"Path: a\nLines: 0\nPath: a/b\nLines: 1\nx\nPath: c\nLines: 0\n", "line 4: a file that can't be"},
	} {
		_, warnings, err := ReadTTAR(strings.NewReader(test.text))
		if err != nil || !strings.Contains(strings.Join(warnings, "\n"), test.warning) {
			t.Errorf("%q: %v, %q, want %q", test.text, err, warnings, test.warning)
		}
	}
}

func FuzzTTAR(f *testing.F) {
	f.Add(ttarExample)
	f.Add("Path: a\nSymlinkTo: a\nPath: b\nSymlinkTo: /a/../b\n")
	f.Fuzz(func(t *testing.T, text string) {
		fsys, _, err := ReadTTAR(strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		walk(t, fsys)
	})
}

// walk reads everything of a file system.
func walk(t *testing.T, fsys fs.FS) {
	t.Helper()
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		_, _ = fs.ReadFile(fsys, name)
		_, _ = fs.Stat(fsys, name)
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
