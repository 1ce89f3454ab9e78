package mpi

import (
	"fmt"
	"path"
	"strings"
)

// Family is an ABI: launchers and libraries of one family can be mixed, those
// of different families never.
type Family string

// The families. FamilyNeutral is the MPI-5 standard ABI, which any launcher's
// library may provide.
const (
	FamilyMPICH   Family = "mpich" // MPICH, Intel MPI, MVAPICH, Cray MPICH: one ABI, one PMI
	FamilyOpenMPI Family = "openmpi"
	FamilyMSMPI   Family = "msmpi"
	FamilyNeutral Family = "neutral"
)

// Library is one library of a program. Path is where the loader finds it on
// the node, empty when it does not.
type Library struct {
	Soname string
	Path   string
}

// Linkage is the MPI that a program links. Flavour is empty when only the
// family is known.
type Linkage struct {
	Family  Family
	Flavour Flavour
	Library Library
}

// String returns for example "Open MPI (libmpi.so.40 => /usr/lib/libmpi.so.40)".
func (k Linkage) String() string {
	var who string
	switch {
	case k.Flavour != "":
		who = k.Flavour.String()
	case k.Family == FamilyMPICH:
		who = "an MPI of MPICH's ABI"
	default:
		who = "an MPI of the standard ABI"
	}
	if k.Library.Path == "" {
		return who + " (" + k.Library.Soname + ", not found here)"
	}
	return who + " (" + k.Library.Soname + " => " + k.Library.Path + ")"
}

// Classify finds the MPI among a program's libraries. It reports false when
// none of them is an MPI library: then the program uses no MPI, or loads it by
// itself later. When there are several, the first decides.
func Classify(libs []Library) (Linkage, bool) {
	for _, lib := range libs {
		if k, ok := classify(lib); ok {
			return k, true
		}
	}
	return Linkage{}, false
}

func classify(lib Library) (Linkage, bool) {
	k := Linkage{Library: lib}
	where := strings.ToLower(lib.Path)
	switch {
	case hasStem(lib.Soname, "libmpi.so", "40", "20", "12"):
		k.Family = FamilyOpenMPI
		k.Flavour = OpenMPI
		if strings.HasSuffix(lib.Soname, ".12") {
			// Also the soname of Open MPI 1.10, long out of use; MPICH's
			// ABI initiative fixed it as theirs.
			k.Family = FamilyMPICH
			k.Flavour = ""
			switch {
			case strings.Contains(where, "intel") || strings.Contains(where, "/impi"):
				k.Flavour = Intel
			case strings.Contains(where, "mpich"):
				k.Flavour = MPICH
			}
		}
	case hasStem(lib.Soname, "libmpich.so"), hasStem(lib.Soname, "libmpi_cray.so"), hasStem(lib.Soname, "libmpi_gnu.so"):
		k.Family, k.Flavour = FamilyMPICH, MPICH
	case hasStem(lib.Soname, "libmpi_ilp64.so"):
		k.Family, k.Flavour = FamilyMPICH, Intel
	case hasStem(lib.Soname, "libmpi_abi.so"):
		k.Family = FamilyNeutral
	case strings.EqualFold(lib.Soname, "msmpi.dll"):
		k.Family, k.Flavour = FamilyMSMPI, MSMPI
	default:
		return Linkage{}, false
	}
	return k, true
}

// hasStem reports whether soname is stem, or stem with one of the major
// versions (any, if none is given).
func hasStem(soname, stem string, majors ...string) bool {
	rest, ok := strings.CutPrefix(soname, stem)
	if !ok {
		return false
	}
	if len(majors) == 0 {
		return rest == "" || rest[0] == '.'
	}
	for _, m := range majors {
		if rest == "."+m {
			return true
		}
	}
	return false
}

// MismatchError says that a launcher can't start a program: every rank would
// silently be rank 0 of 1.
type MismatchError struct {
	Launcher Launcher
	Linkage  Linkage
}

func (e *MismatchError) Error() string {
	return fmt.Sprintf("the program links %s but would be launched by %s: choose the other with --mpi, or put the right mpirun first on PATH (for example in --setup)", e.Linkage, e.Launcher)
}

// Compatible returns a *MismatchError if the launcher is known to be unable to
// start a program of that linkage. It refuses only on proof: MPICH, Intel MPI
// and MVAPICH share an ABI and a PMI, and the standard ABI is for every
// launcher. An unknown family passes.
func Compatible(l Launcher, k Linkage) error {
	want := familyOf(l.Flavour)
	if want == "" || k.Family == "" || k.Family == FamilyNeutral || k.Family == want {
		return nil
	}
	return &MismatchError{Launcher: l, Linkage: k}
}

func familyOf(f Flavour) Family {
	switch f {
	case MPICH, Intel:
		return FamilyMPICH
	case OpenMPI:
		return FamilyOpenMPI
	case MSMPI:
		return FamilyMSMPI
	}
	return ""
}

// Candidates returns the launchers to look for, best first, for what was asked
// (empty: anything) and what the program links: absolute paths, which may not
// exist, beside the library that the program uses, then names to look for on
// PATH. Each found one must still be asked for its version and held against
// want and Compatible: mpiexec and mpirun are links that the last installed MPI
// owns. The result is empty for None.
func Candidates(want Flavour, link Linkage) []string {
	if want == None {
		return nil
	}
	if want == "" {
		want = link.Flavour
	}
	if want == "" && link.Family == FamilyOpenMPI {
		want = OpenMPI
	}
	if want == "" && link.Family == FamilyMSMPI {
		want = MSMPI
	}
	names := launcherNames(want, link.Family)
	var beside []string
	if familyOf(want) == "" || familyOf(want) == link.Family {
		for _, dir := range binDirs(link.Library.Path) {
			for _, name := range names {
				beside = append(beside, dir+"/"+name)
			}
		}
	}
	if len(beside) > 0 || link.Library.Path == "" {
		return append(beside, names...)
	}
	// A library of the system's: the distribution's own names are surer than
	// those that belong to whichever MPI was installed last.
	switch want {
	case MPICH:
		return append([]string{"mpiexec.mpich"}, names...)
	case OpenMPI:
		return append([]string{"mpirun.openmpi"}, names...)
	}
	return names
}

// launcherNames puts the common names first, so that PATH decides: that is
// where a module or a virtual environment says what it wants.
func launcherNames(want Flavour, family Family) []string {
	switch want {
	case MPICH:
		return []string{"mpiexec.hydra", "mpiexec", "mpirun", "mpiexec.mpich", "mpirun.mpich"}
	case Intel:
		// mpirun is a script around mpiexec.hydra that asks other schedulers'
		// variables.
		return []string{"mpiexec.hydra", "mpiexec", "mpirun"}
	case OpenMPI:
		return []string{"mpirun", "mpiexec", "orterun", "mpirun.openmpi"}
	case MSMPI:
		return []string{"mpiexec.exe", "mpiexec"}
	}
	if family == FamilyMPICH {
		return []string{"mpiexec.hydra", "mpiexec", "mpirun", "mpiexec.mpich"}
	}
	return []string{"mpiexec", "mpirun", "mpiexec.hydra", "mpiexec.mpich", "mpirun.openmpi", "orterun"}
}

// binDirs returns where the launcher of an installation may be whose library is
// lib: PREFIX/bin for PREFIX/lib/x and PREFIX/lib/release/x. Libraries of the
// system have their launchers on PATH.
func binDirs(lib string) []string {
	if !path.IsAbs(lib) {
		return nil
	}
	dir := path.Dir(path.Clean(lib))
	for _, system := range []string{"/lib", "/lib64", "/usr/lib", "/usr/lib64"} {
		if dir == system || strings.HasPrefix(dir, system+"/") && strings.Contains(dir, "-linux-gnu") {
			return nil
		}
	}
	var dirs []string
	for range 2 {
		dir = path.Dir(dir)
		if dir == "/" || dir == "/usr" {
			break
		}
		dirs = append(dirs, dir+"/bin")
	}
	return dirs
}
