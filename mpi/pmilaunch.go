package mpi

import (
	"bytes"
	"slices"
	"strings"
)

// BuildPMI returns what a gang of MPICH's family needs whose ranks gangway starts
// itself: the hostfile, and what every rank's environment has besides its place.
// Binding is gangway's, so Intel MPI's own is off. There is no Argv.
func BuildPMI(f Facts, l Layout) (Launch, error) {
	if err := l.check(); err != nil {
		return Launch{}, err
	}
	if err := absolute("gang directory", f.Dir, f.Launcher.Flavour); err != nil {
		return Launch{}, err
	}
	out := newHostfile(f, l, "hostfile", hydraLine)
	out.Env, out.Unset = PMIEnv()
	return out, nil
}

// PMIEnv returns the variables to set (K=V) and to remove (as Launch.Unset) in the
// environment of every rank that gangway starts over PMI, whatever the flavour.
func PMIEnv() (env, unset []string) { return []string{"I_MPI_PIN=0"}, []string{"I_MPI_PIN_*"} }

// ForeignPMI returns the first of the libraries (sonames) that brings a PMI of
// another kind than the one that MPICH and Intel MPI have built in: of a
// scheduler's, PMI-2 or PMIx. "": there is none.
func ForeignPMI(sonames []string) string {
	for _, n := range sonames {
		for _, stem := range []string{"libpmi.so", "libpmi2.so", "libpmi1.so", "libpmix.so", "libpmix2.so", "libpals.so", "libslurm_pmi"} {
			if strings.HasPrefix(n, stem) {
				return n
			}
		}
	}
	return ""
}

// ProvenPMI says whether ranks of an MPI library start over PMI-1 without its
// mpirun, as tests with the library have shown: MPICH from 4 on, Intel MPI from
// 2021 on. sonames are the libraries that it needs, text is its read-only data,
// in which the version stands as a string of its own.
func ProvenPMI(sonames []string, text []byte) (Flavour, Version, bool) {
	if ForeignPMI(sonames) != "" {
		return "", Version{}, false
	}
	for _, other := range []string{"MVAPICH", "CRAY MPICH", "ParaStation"} {
		if bytes.Contains(text, []byte(other)) {
			return "", Version{}, false // MPICH's in part, its start-up their own
		}
	}
	switch {
	case bytes.Contains(text, []byte("Intel(R) MPI Library")):
		v, ok := versionIn(text, 2021, 2099)
		return Intel, v, ok
	case bytes.Contains(text, []byte("MPICH Version:")):
		v, ok := versionIn(text, 4, 9)
		return MPICH, v, ok
	}
	return "", Version{}, false
}

// ProvenLauncher says the same of the MPI that a launcher belongs to.
func ProvenLauncher(l Launcher) bool {
	return l.Flavour == MPICH && l.Version.Major >= 4 || l.Flavour == Intel && l.Version.Major >= 2021
}

// versionIn finds a string in C that is a version with a major number in the
// range.
func versionIn(text []byte, low, high int) (Version, bool) {
	const longest = 16
	for len(text) > 0 {
		end := bytes.IndexByte(text, 0)
		if end < 0 {
			break
		}
		word := text[:end]
		text = text[end+1:]
		if len(word) < 3 || len(word) > longest || word[0] < '1' || word[0] > '9' || bytes.IndexByte(word, '.') < 0 {
			continue
		}
		v := versionOf(string(word))
		if v.Major >= low && v.Major <= high && plain(word) {
			return v, true
		}
	}
	return Version{}, false
}

// plain says whether a word could be a release: "4.0.2", "5.0.0rc1", "2021.17".
func plain(word []byte) bool {
	parts := bytes.Split(word, []byte("."))
	return len(parts) <= 4 && !slices.ContainsFunc(parts, func(p []byte) bool { return len(p) == 0 || p[0] < '0' || p[0] > '9' })
}
