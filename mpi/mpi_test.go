package mpi

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"
)

// As the launchers print them.
const (
	printsMPICH   = "HYDRA build details:\n    Version:                                 4.0.2\n    Release Date:                            Thu Apr  7 12:34:45 CDT 2022\n"
	printsIntel   = "Intel(R) MPI Library for Linux* OS, Version 2021.18.1 Build 20260626 (id: b44796a)\nCopyright 2003-2026, Intel Corporation.\n"
	printsOMPI4   = "mpirun.openmpi (OpenRTE) 4.1.4\n\nReport bugs to http://www.open-mpi.org/community/help/\n"
	printsOMPI5   = "mpirun (Open MPI) 5.0.11\n\nReport bugs to https://www.open-mpi.org/community/help/\n"
	printsMSMPI   = "Microsoft MPI Startup Program [Version 10.1.12498.18]\r\n\r\nLaunches an application on multiple hosts.\r\n"
	printsIntel18 = "Intel(R) MPI Library for Linux* OS, Version 2018 Update 4 Build 20180823 (id: 18555)\nCopyright (C) 2003-2018, Intel Corporation. All rights reserved.\n"
)

func TestParseVersion(t *testing.T) {
	tests := []struct {
		output  string
		flavour Flavour
		version Version
	}{
		{printsMPICH, MPICH, Version{4, 0, 2, "4.0.2"}},
		{printsIntel, Intel, Version{2021, 18, 1, "2021.18.1"}},
		{printsIntel18, Intel, Version{2018, 0, 0, "2018"}},
		{printsOMPI4, OpenMPI, Version{4, 1, 4, "4.1.4"}},
		{printsOMPI5, OpenMPI, Version{5, 0, 11, "5.0.11"}},
		{"mpirun (Open MPI) 5.1.0rc2\n", OpenMPI, Version{5, 1, 0, "5.1.0rc2"}},
		{"HYDRA build details:\r\n    Version:   5.0.0b1\r\n", MPICH, Version{5, 0, 0, "5.0.0b1"}},
		{printsMSMPI, MSMPI, Version{10, 1, 12498, "10.1.12498.18"}},
		{"motd: welcome\n" + printsOMPI4, OpenMPI, Version{4, 1, 4, "4.1.4"}},
	}
	for _, tt := range tests {
		f, v, err := ParseVersion(tt.output)
		if err != nil || f != tt.flavour || v != tt.version {
			t.Errorf("ParseVersion(%q) = %q, %+v, %v; want %q, %+v", tt.output, f, v, err, tt.flavour, tt.version)
		}
	}
	for _, bad := range []string{"", "bash: mpiexec: command not found\n", "slurm 22.05.8\n", strings.Repeat("x", 5000), "mpirun (GNU coreutils) 9.1\n"} {
		if f, v, err := ParseVersion(bad); err == nil {
			t.Errorf("ParseVersion(%.40q) = %q, %v, want an error", bad, f, v)
		} else if len(err.Error()) > 400 {
			t.Errorf("ParseVersion(%.40q): the error quotes everything", bad)
		}
	}
}

func FuzzParseVersion(f *testing.F) {
	for _, s := range []string{printsMPICH, printsIntel, printsIntel18, printsOMPI4, printsOMPI5, printsMSMPI, "", "mpirun (Open MPI) 99999999999999999999.1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		flavour, v, err := ParseVersion(s)
		if err != nil {
			if flavour != "" || v != (Version{}) {
				t.Errorf("an error and a result: %q %+v", flavour, v)
			}
			return
		}
		if familyOf(flavour) == "" {
			t.Errorf("no family for %q", flavour)
		}
		if v.Text == "" || v.Major < 0 || v.Minor < 0 || v.Patch < 0 {
			t.Errorf("version %+v", v)
		}
	})
}

func TestClassify(t *testing.T) {
	lib := func(soname, path string) []Library {
		return []Library{{"libc.so.6", "/lib/libc.so.6"}, {soname, path}, {"libm.so.6", ""}}
	}
	tests := []struct {
		libs    []Library
		family  Family
		flavour Flavour
	}{
		{lib("libmpich.so.12", "/lib/x86_64-linux-gnu/libmpich.so.12"), FamilyMPICH, MPICH},
		{lib("libmpi.so.12", ""), FamilyMPICH, ""},
		{lib("libmpi.so.12", "/opt/venv/lib/libmpi.so.12"), FamilyMPICH, ""},
		{lib("libmpi.so.12", "/opt/intel/oneapi/mpi/2021.18/lib/libmpi.so.12"), FamilyMPICH, Intel},
		{lib("libmpi.so.12", "/opt/impi/lib/libmpi.so.12"), FamilyMPICH, Intel},
		{lib("libmpi.so.12", "/opt/mpich-4.2/lib/libmpi.so.12"), FamilyMPICH, MPICH},
		{lib("libmpi_cray.so.12", ""), FamilyMPICH, MPICH},
		{lib("libmpi.so.40", "/lib/x86_64-linux-gnu/libmpi.so.40"), FamilyOpenMPI, OpenMPI},
		{lib("libmpi_abi.so.1", "/opt/lib/libmpi_abi.so.1"), FamilyNeutral, ""},
		{[]Library{{"KERNEL32.dll", ""}, {"MSMPI.DLL", ""}}, FamilyMSMPI, MSMPI},
	}
	for _, tt := range tests {
		k, ok := Classify(tt.libs)
		if !ok || k.Family != tt.family || k.Flavour != tt.flavour {
			t.Errorf("Classify(%v) = %+v, %v; want %s, %s", tt.libs, k, ok, tt.family, tt.flavour)
		}
	}
	for _, libs := range [][]Library{nil, lib("libmpi_usempif08.so.40", ""), lib("libmpifort.so.12", ""), lib("libmpicxx.so.12", ""), lib("libmpi.so.99", ""), lib("libmpichabel.so", "")} {
		if k, ok := Classify(libs); ok {
			t.Errorf("Classify(%v) = %+v, want none", libs, k)
		}
	}
}

func TestClassifyProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOf(rapid.SampledFrom([]string{"libmpi.so.12", "libmpi.so.40", "libmpich.so.12", "libmpi_abi.so.1", "libc.so.6", "libmpifort.so.12", ""})).Draw(t, "names")
		var libs, others []Library
		for _, n := range names {
			l := Library{Soname: n, Path: rapid.SampledFrom([]string{"", "/usr/lib/x", "/opt/mpich/lib/x", "/opt/intel/lib/x"}).Draw(t, "path")}
			libs = append(libs, l)
			if _, ok := Classify([]Library{l}); !ok {
				others = append(others, l)
			}
		}
		k, ok := Classify(libs)
		if ok != (len(others) < len(libs)) {
			t.Fatalf("found %v among %v", ok, libs)
		}
		if ok && k.Flavour != "" && familyOf(k.Flavour) != k.Family {
			t.Fatalf("%+v: a flavour of another family", k)
		}
		// What is no MPI changes nothing.
		k2, ok2 := Classify(append(others, libs...))
		if diff := cmp.Diff(k, k2); diff != "" || ok != ok2 {
			t.Fatalf("other libraries in front changed the result: %s", diff)
		}
	})
}

func TestCompatible(t *testing.T) {
	launcher := func(f Flavour) Launcher {
		return Launcher{Flavour: f, Version: Version{Text: "1.2"}, Path: "/opt/" + string(f)}
	}
	tests := []struct {
		launcher Flavour
		family   Family
		ok       bool
	}{
		{MPICH, FamilyMPICH, true}, {Intel, FamilyMPICH, true}, {OpenMPI, FamilyMPICH, false}, {MSMPI, FamilyMPICH, false},
		{MPICH, FamilyOpenMPI, false}, {Intel, FamilyOpenMPI, false}, {OpenMPI, FamilyOpenMPI, true},
		{MPICH, FamilyNeutral, true}, {OpenMPI, FamilyNeutral, true}, {OpenMPI, "", true}, {None, FamilyMPICH, true},
		{MSMPI, FamilyMSMPI, true}, {MPICH, FamilyMSMPI, false},
	}
	for _, tt := range tests {
		k := Linkage{Family: tt.family, Library: Library{"libmpi.so.N", "/lib/libmpi.so.N"}}
		err := Compatible(launcher(tt.launcher), k)
		var mismatch *MismatchError
		if tt.ok != (err == nil) || err != nil && !errors.As(err, &mismatch) {
			t.Errorf("Compatible(%s, %s) = %v, want ok %v", tt.launcher, tt.family, err, tt.ok)
		}
		if err != nil && !(strings.Contains(err.Error(), "libmpi.so.N") && strings.Contains(err.Error(), launcher(tt.launcher).String())) {
			t.Errorf("%v: must name both sides", err)
		}
	}
}

func TestCandidates(t *testing.T) {
	link := func(soname, path string) Linkage {
		k, ok := Classify([]Library{{soname, path}})
		if !ok {
			t.Fatal(soname)
		}
		return k
	}
	tests := []struct {
		want  Flavour
		link  Linkage
		first string
		has   string
	}{
		{"", link("libmpich.so.12", "/lib/x86_64-linux-gnu/libmpich.so.12"), "mpiexec.mpich", "mpiexec.hydra"},
		{"", link("libmpi.so.40", "/lib/x86_64-linux-gnu/libmpi.so.40"), "mpirun.openmpi", "mpirun"},
		{"", link("libmpi.so.40", "/opt/venv/lib/libmpi.so.40"), "/opt/venv/bin/mpirun", "mpirun"},
		{"", link("libmpi.so.12", "/opt/intel/mpi/lib/release/libmpi.so.12"), "/opt/intel/mpi/lib/bin/mpiexec.hydra", "/opt/intel/mpi/bin/mpiexec.hydra"},
		{"", link("libmpi.so.12", ""), "mpiexec.hydra", "mpiexec.mpich"},
		{OpenMPI, link("libmpi.so.12", "/opt/venv/lib/libmpi.so.12"), "mpirun.openmpi", "mpirun"},
		{OpenMPI, Linkage{}, "mpirun", "mpirun.openmpi"},
		{MPICH, Linkage{}, "mpiexec.hydra", "mpiexec.mpich"},
		{Intel, Linkage{}, "mpiexec.hydra", "mpirun"},
		{"", Linkage{}, "mpiexec", "mpirun.openmpi"},
		{MSMPI, Linkage{}, "mpiexec.exe", "mpiexec"},
	}
	for _, tt := range tests {
		got := Candidates(tt.want, tt.link)
		if len(got) == 0 || got[0] != tt.first {
			t.Errorf("Candidates(%q, %v) = %q, want %q first", tt.want, tt.link, got, tt.first)
		}
		if !contains(got, tt.has) {
			t.Errorf("Candidates(%q, %v) = %q, want %q among them", tt.want, tt.link, got, tt.has)
		}
	}
	if got := Candidates(None, Linkage{}); got != nil {
		t.Errorf("Candidates(none) = %q", got)
	}
}

func contains(list []string, s string) bool {
	for _, x := range list {
		if x == s {
			return true
		}
	}
	return false
}
