// Package mpi knows the MPI launchers: which flavour an mpirun is, which one a
// program links, and what to say to each so that it starts a gang's ranks on
// exactly the nodes given. Everything is a value in and a value out: the
// package reads no file, looks at no environment and starts no process.
//
// The rules rest on runs of MPICH 4.0.2 and 5.0.2, Open MPI 4.1.4 and 5.0.11
// and Intel MPI 2021.18 over four hosts; those of MS-MPI come from its
// documentation alone.
package mpi

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// Flavour names an MPI implementation by what its launcher understands.
type Flavour string

// The flavours. None is a program without MPI: gangway starts its ranks itself.
const (
	MPICH   Flavour = "mpich" // Hydra; MVAPICH has the same launcher and ABI
	Intel   Flavour = "intel"
	OpenMPI Flavour = "openmpi"
	MSMPI   Flavour = "msmpi"
	None    Flavour = "none"
)

// Flavours returns all flavours, in the order in which automatic detection
// tries them.
func Flavours() []Flavour {
	return []Flavour{MPICH, Intel, OpenMPI, MSMPI, None}
}

// String returns the flavour's name as its makers write it.
func (f Flavour) String() string {
	switch f {
	case MPICH:
		return "MPICH"
	case Intel:
		return "Intel MPI"
	case OpenMPI:
		return "Open MPI"
	case MSMPI:
		return "MS-MPI"
	case None:
		return "no MPI"
	}
	return "unknown MPI " + strconv.Quote(string(f))
}

// Version is a launcher's version. Text is the version as the launcher prints
// it (for example "2021.18" or "5.0.0rc1"); parts that it lacks are 0.
type Version struct {
	Major, Minor, Patch int
	Text                string
}

// String returns the version as the launcher prints it.
func (v Version) String() string { return v.Text }

// Launcher is an mpirun on the node that will run it.
type Launcher struct {
	Flavour Flavour
	Version Version
	// Path is absolute. Links may be resolved only as far as the directory
	// still holds the launcher's helpers (hydra_pmi_proxy, orted, prted):
	// they are started from there on every node.
	Path string
}

// String returns for example "Open MPI 4.1.4 (/usr/bin/mpirun.openmpi)".
func (l Launcher) String() string {
	s := l.Flavour.String()
	if l.Version.Text != "" {
		s += " " + l.Version.Text
	}
	if l.Path != "" {
		s += " (" + l.Path + ")"
	}
	return s
}

// What each launcher prints for --version (MS-MPI prints it with its usage).
// Intel's must be tried before MPICH's: old Intel launchers print Hydra's
// "build details" as well.
var versionLines = []struct {
	flavour Flavour
	line    *regexp.Regexp
}{
	{Intel, regexp.MustCompile(`Intel\(R\) MPI Library[^\n]*?,? Version (\d[\w.]*)`)},
	{OpenMPI, regexp.MustCompile(`\((?:Open MPI|OpenRTE|PRRTE)\) (\d[\w.]*)`)},
	{MSMPI, regexp.MustCompile(`Microsoft MPI (?:Startup Program|Launcher)[^\n]*?Version (\d[\w.]*)`)},
	{MPICH, regexp.MustCompile(`HYDRA build details:\s*\n\s*Version:\s*(\d[\w.]*)`)},
}

// ParseVersion reads the output of a launcher's --version. An output that no
// flavour prints is an error that quotes its first line.
func ParseVersion(output string) (Flavour, Version, error) {
	output = strings.ReplaceAll(output, "\r\n", "\n")
	for _, v := range versionLines {
		if m := v.line.FindStringSubmatch(output); m != nil {
			return v.flavour, versionOf(m[1]), nil
		}
	}
	first, _, _ := strings.Cut(strings.TrimSpace(output), "\n")
	if len(first) > 80 {
		first = first[:80]
	}
	return "", Version{}, fmt.Errorf("no known MPI launcher prints %q as its version: give its name with --mpi (%s)", first, flavourNames())
}

func flavourNames() string {
	var names []string
	for _, f := range Flavours() {
		names = append(names, string(f))
	}
	return strings.Join(names, ", ")
}

func versionOf(text string) Version {
	text = strings.TrimRight(text, ".")
	v := Version{Text: text}
	for i, part := range strings.SplitN(text, ".", 4) {
		digits := part[:len(part)-len(strings.TrimLeft(part, "0123456789"))]
		n, err := strconv.Atoi(digits)
		if err != nil {
			break // no digits, or more than an int holds
		}
		switch i {
		case 0:
			v.Major = n
		case 1:
			v.Minor = n
		case 2:
			v.Patch = n
		}
		if digits != part {
			break // "0rc1": what follows is no number
		}
	}
	return v
}
