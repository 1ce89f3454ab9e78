package shim

import (
	"debug/elf"
	"fmt"
	"io"
	"slices"

	"gangway/mpi"
	"gangway/nodeagent/wire"
)

// Ways to launch that an assignment can ask for; "" and auto leave it to detect.
const (
	askPMI    = "pmi"
	askMPIRun = "mpirun"
)

// maxText is how much of a library is looked at.
const maxText = 16 << 20

// libraryFacts are the libraries that an MPI library needs and its read-only data.
func libraryFacts(path string) (needs []string, text []byte) {
	if path == "" {
		return nil, nil
	}
	f, err := elf.Open(path)
	if err != nil {
		return nil, nil
	}
	defer f.Close()
	if needs, err = f.ImportedLibraries(); err != nil {
		needs = nil
	}
	if sec := f.Section(".rodata"); sec != nil && sec.Type != elf.SHT_NOBITS {
		text, _ = io.ReadAll(io.LimitReader(sec.Open(), maxText))
	}
	return needs, text
}

// pmiByLibrary decides by the library that the program links whether the ranks
// start without an mpirun. No mpirun is asked for, nor needed, when it is proven.
func (s *shim) pmiByLibrary(want mpi.Flavour, link mpi.Linkage) (detection, bool) {
	if s.a.GetLaunchVia() == askMPIRun || want == mpi.OpenMPI || want == mpi.MSMPI {
		return detection{}, false
	}
	if link.Family != mpi.FamilyMPICH && link.Family != mpi.FamilyNeutral {
		return detection{}, false
	}
	flavour, version, ok := mpi.ProvenPMI(libraryFacts(link.Library.Path))
	if !ok {
		return detection{}, false
	}
	return detection{via: viaPMI, launcher: mpi.Launcher{Flavour: flavour, Version: version}, linked: link.String()}, true
}

// pmiForced is --launch pmi: everything of MPICH's family is taken, and programs of
// which nothing is known; what surely speaks another protocol is refused.
func (s *shim) pmiForced(want mpi.Flavour, link mpi.Linkage) (detection, *wire.Failure) {
	d := detection{via: viaPMI, launcher: mpi.Launcher{Flavour: want}}
	if link.Family != "" {
		d.linked = link.String()
	}
	no := func(message string) (detection, *wire.Failure) {
		return d, failed(wire.FailureCode_FAILURE_MPI_MISMATCH, s.nodeName(), message, "leave --launch out, or use --launch mpirun")
	}
	switch {
	case link.Family == mpi.FamilyOpenMPI || link.Family == "" && want == mpi.OpenMPI:
		return no("Open MPI can't be started over PMI-1 (--launch pmi): it needs PMIx, which its own mpirun has")
	case link.Family == mpi.FamilyMSMPI || link.Family == "" && want == mpi.MSMPI:
		return no("MS-MPI can't be started over PMI-1 (--launch pmi): only its own mpiexec speaks with it")
	case link.Family == "" && want == "":
		d.launcher.Flavour = mpi.MPICH
		return d, nil
	}
	needs, text := libraryFacts(link.Library.Path)
	if other := mpi.ForeignPMI(needs); other != "" {
		return no(fmt.Sprintf("the program's %s brings a PMI of its own, %s, to which --launch pmi does not speak", link.Library.Soname, other))
	}
	if f, v, ok := mpi.ProvenPMI(needs, text); ok {
		d.launcher = mpi.Launcher{Flavour: f, Version: v}
	}
	if d.launcher.Flavour == "" || !slices.Contains([]mpi.Flavour{mpi.MPICH, mpi.Intel}, d.launcher.Flavour) {
		d.launcher.Flavour = mpi.MPICH
	}
	return d, nil
}

// pmiByLauncher takes PMI in place of a launcher whose library is proven: of a
// program that does not say what it links, the launcher that would start it says
// which MPI is meant.
func (s *shim) pmiByLauncher(d detection) detection {
	if s.a.GetLaunchVia() != askMPIRun && d.via == viaMPIRun && mpi.ProvenLauncher(d.launcher) && d.linked == "" {
		d.via = viaPMI
	}
	return d
}
