package topology_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"gangway/topology"
)

func TestExpandHosts(t *testing.T) {
	for _, test := range []struct{ in, want, err string }{
		{in: "n1", want: "n1"},
		{in: "n[1-4,7]", want: "n1 n2 n3 n4 n7"},
		{in: "n[1-2],m[01-03]x", want: "n1 n2 m01x m02x m03x"},
		{in: "r[1-2]n[08-10]", want: "r1n08 r1n09 r1n10 r2n08 r2n09 r2n10"},
		{in: "[1-2]", want: "1 2"},
		{in: "n[9-11]", want: "n9 n10 n11"},
		{in: "n[099-101]", want: "n099 n100 n101"},
		{in: "user@n[1-2].example.org", want: "user@n1.example.org user@n2.example.org"},
		{in: "10.0.0.[1-2]", want: "10.0.0.1 10.0.0.2"},
		{in: "fd00::1,[fd00::2],bob@[fd00::3]", want: "fd00::1 fd00::2 bob@fd00::3"},
		{in: "", err: "column 1: expected a host name"},
		{in: "n1,", err: "column 4: expected a host name"},
		{in: ",n1", err: "column 1: found ',': expected a host name"},
		{in: "n[1-4", err: "column 2: '[' is not closed"},
		{in: "n1-4]", err: "column 5: ']' without '['"},
		{in: "n[[1-2]]", err: "column 3: brackets inside brackets"},
		{in: "n[1-[2]]", err: "column 5: brackets inside brackets"},
		{in: "n[]", err: "column 3: expected a number"},
		{in: "n[1,]", err: "column 5: expected a number"},
		{in: "n[a-b]", err: "column 3: expected a number"},
		{in: "n[4-1]", err: "column 3: range 4-1 runs backwards"},
		{in: "n[1-010]", err: "column 3: the ends of 1-010 are padded differently"},
		{in: "n[01-9]", err: "column 3: the ends of 01-9 are padded differently"},
		{in: "n[1-70000]", err: "column 3: more than 65536 hosts"},
		{in: "n[1-300]m[1-300]", err: "column 1: more than 65536 hosts"},
		{in: "n[1-99999999999999999999]", err: "more than 18 digits"},
		{in: "n[1-3],n2", err: `column 8: host "n2" is named twice`},
		{in: "n1 n2", err: "column 3: found ' ': hosts are separated by commas"},
		{in: "n1:4", err: "slots (host:4) belong into a hostfile"},
		{in: "-oProxyCommand=x", err: "column 1: a host or user name does not begin with '-'"},
		{in: "u@-x", err: "column 3: a host or user name does not begin with '-'"},
		{in: "@n1", err: "column 1: found '@'"},
		{in: "a@b@c", err: "column 4: found '@'"},
		{in: "u@", err: "column 3: expected a host name"},
		{in: "n\x00", err: "column 2"},
		{in: "n/1", err: "column 2: found '/'"},
		{in: strings.Repeat("x", 400), err: "more than 320 characters"},
	} {
		got, err := topology.ExpandHosts(test.in)
		if test.err != "" {
			if err == nil || !strings.Contains(err.Error(), test.err) || got != nil {
				t.Errorf("ExpandHosts(%.40q) = %v, %v; want error %q", test.in, got, err, test.err)
			}
			continue
		}
		if err != nil || strings.Join(got, " ") != test.want {
			t.Errorf("ExpandHosts(%q) = %v, %v; want %s", test.in, got, err, test.want)
		}
	}
}

func TestCompactHosts(t *testing.T) {
	for _, test := range []struct{ in, want string }{
		{"", ""},
		{"n1", "n1"},
		{"n1 n2 n3 n7", "n[1-3,7]"},
		{"n1 m1 n2", "n1,m1,n2"},
		{"n09 n10 n11", "n[09-11]"},
		{"n9 n10 n11", "n[9-11]"},
		{"n1-ib0 n2-ib0 n4-ib0", "n[1-2,4]-ib0"},
		{"r1n1 r1n2 r2n1", "r1n[1-2],r2n1"},
		{"10.0.0.1 10.0.0.2", "10.0.0.[1-2]"},
		{"fd00::1 fd00::2 bob@fd00::3", "[fd00::1],[fd00::2],bob@[fd00::3]"},
		{"u1@h u2@h", "u1@h,u2@h"},
		{"a b", "a,b"},
	} {
		if got := topology.CompactHosts(strings.Fields(test.in)); got != test.want {
			t.Errorf("CompactHosts(%s) = %s, want %s", test.in, got, test.want)
		}
	}
}

// TestHostsRoundTrip: compacting loses neither a host nor their order.
func TestHostsRoundTrip(t *testing.T) {
	name := rapid.StringMatching(`(u[0-9]@)?[nm](0{0,2}[0-9]{1,2})?(-ib[01])?(\.c[1-3])?`)
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfNDistinct(name, 1, 30, func(s string) string { return s }).Draw(t, "names")
		if rapid.Bool().Draw(t, "sorted") {
			slices.Sort(names)
		}
		list := topology.CompactHosts(names)
		got, err := topology.ExpandHosts(list)
		if err != nil {
			t.Fatalf("ExpandHosts(%s): %v", list, err)
		}
		if diff := cmp.Diff(names, got); diff != "" {
			t.Fatalf("through %s (-want +got):\n%s", list, diff)
		}
	})
}

func TestParseHostfile(t *testing.T) {
	for _, test := range []struct{ name, in, want, err string }{
		{name: "plain", in: "n1\nn2\n", want: "n1:0@1 n2:0@2"},
		{name: "hydra", in: "# nodes\nn1:4\n\nn2:2 binding=user:0,1 # two\n", want: "n1:4@2 n2:2@4"},
		{name: "openmpi", in: "n1 slots=4 max_slots=8\n  n2  slots=2\tmax-slots=2\r\n", want: "n1:4@1 n2:2@2"},
		{name: "user", in: "bob@n1:2\nn2 user=ann slots=3\n", want: "bob@n1:2@1 ann@n2:3@2"},
		{name: "ipv6", in: "[fd00::1]:4\nfd00::2 slots=2\n", want: "fd00::1:4@1 fd00::2:2@2"},
		{name: "hostlist", in: "n[1-2]:2,m1\n", want: "n1:2@1 n2:2@1 m1:0@1"},
		{name: "repeated", in: "n1\nn1\nn2\nn1\n", want: "n1:3@1 n2:0@3"},
		{name: "repeated slots", in: "n1:2\nn1:3\n", want: "n1:5@1"},
		{name: "bom, no newline", in: "\ufeffn1", want: "n1:0@1"},
		{name: "empty", in: "# nothing\n", err: "hosts: no hosts in the file"},
		{name: "zero", in: "n1:0\n", err: "hosts:1:4: slots must be 1 to"},
		{name: "huge", in: "n1 slots=99999999999999999999\n", err: "hosts:1:10: slots must be 1 to"},
		{name: "colon", in: "ok\nn1:\n", err: "hosts:2:4: expected the slots of the host"},
		{name: "typo", in: "n1 slotz=4\n", err: "hosts:1:4: unknown option \"slotz\""},
		{name: "number", in: "n1 4\n", err: "hosts:1:4: found \"4\": expected slots=N"},
		{name: "twice", in: "n1:2 slots=4\n", err: "hosts:1:6: the slots are given twice"},
		{name: "max", in: "n1 slots=4 max_slots=2\n", err: "hosts:1:12: max_slots=2 is below slots=4"},
		{name: "trailing", in: "n1 slots=4x\n", err: "hosts:1:11: found 'x'"},
		{name: "bracket", in: "\n\nn[1-\n", err: "hosts:3:2: '[' is not closed"},
		{name: "two users", in: "bob@n1 user=ann\n", err: "is given twice"},
		{name: "option user", in: "n1 user=-x\n", err: "hosts:1:9: found '-'"},
		{name: "binary", in: "\x7fELF\x02\x01\n", err: "hosts:1:1:"},
		{name: "too many", in: strings.Repeat("n[1-9]m[1-9999]\n", 2), err: "more than 65536 hosts"},
	} {
		t.Run(test.name, func(t *testing.T) {
			got, err := topology.ParseHostfile(strings.NewReader(test.in), "hosts")
			if test.err != "" {
				if err == nil || !strings.Contains(err.Error(), test.err) || got != nil {
					t.Errorf("got %v, %v; want error %q", got, err, test.err)
				}
				return
			}
			var words []string
			for _, h := range got {
				words = append(words, fmt.Sprintf("%s:%d@%d", h.Name, h.Slots, h.Line))
			}
			if err != nil || strings.Join(words, " ") != test.want {
				t.Errorf("got %v, %v; want %s", words, err, test.want)
			}
		})
	}
}

func TestHostfileExcerpt(t *testing.T) {
	_, err := topology.ParseHostfile(strings.NewReader("n1 slots=4\nn2 slotz=4 # typo\n"), "hosts.txt")
	want := `hosts.txt:2:4: unknown option "slotz": expected slots=N, max_slots=N, user=NAME or binding=…
    n2 slotz=4 # typo
       ^`
	if err == nil || err.Error() != want {
		t.Errorf("got:\n%v\nwant:\n%s", err, want)
	}
}

func FuzzExpandHosts(f *testing.F) {
	for _, s := range []string{"n[1-4,7],m[01-03]x", "a@[::1]", "n[[1]]", "fd00::1", "r[1-9]n[1-9]", "n[1-", "::ffff:1.2.3.4"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hosts, err := topology.ExpandHosts(s)
		if err != nil {
			if hosts != nil {
				t.Fatal("hosts beside an error")
			}
			return
		}
		again, err := topology.ExpandHosts(topology.CompactHosts(hosts))
		if err != nil || !slices.Equal(again, hosts) {
			t.Fatalf("%q: %v, then %v, %v", s, hosts, again, err)
		}
	})
}

func FuzzParseHostfile(f *testing.F) {
	for _, s := range []string{"n1:4\nn2 slots=2 # x\n", "bob@[fd00::1]:3", "n[1-3]:2,m binding=user", "\xff\x00", "n1 user=x max_slots=1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		hosts, err := topology.ParseHostfile(strings.NewReader(s), "f")
		if (err == nil) != (len(hosts) > 0) {
			t.Fatalf("%d hosts, error %v", len(hosts), err)
		}
		for _, h := range hosts {
			if h.Name == "" || h.Slots < 0 || h.Line < 1 || strings.HasPrefix(h.Name, "-") {
				t.Fatalf("bad entry %+v", h)
			}
		}
	})
}
