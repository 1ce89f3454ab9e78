package shim

import (
	"bytes"
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"gangway/mpi"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
)

// How a gang's processes start.
const (
	viaMPIRun  = "mpirun"  // an MPI's own launcher starts the wrappers
	viaPMI     = "pmi"     // every shim starts its ranks and serves them PMI-1
	viaDirect  = "direct"  // every shim starts its ranks
	viaPrimary = "primary" // one command on the primary does what it likes
)

// detection is which MPI the gang runs under, found on the primary only: PATH
// and modules are the user's there.
type detection struct {
	via      string
	launcher mpi.Launcher
	linked   string // for people; "" unknown
	notice   string
}

// proof is what is known of a program's libraries.
type proof int

const (
	unknown proof = iota // a script, a static binary, one that loads or starts others
	linksMPI
	linksNone
)

const askLimit = 10 * time.Second

// maxWords is how many arguments of a command are looked at for its program.
const maxWords = 32

// detect decides how the ranks start and by which launcher.
func (s *shim) detect(ctx context.Context, p *prepared) (detection, *wire.Failure) {
	want := mpi.Flavour(s.a.GetMpi())
	if want == "auto" {
		want = ""
	}
	if want == mpi.None && s.a.GetLaunch() == wire.LaunchMode_LAUNCH_RANKS {
		return detection{via: viaDirect, launcher: mpi.Launcher{Flavour: mpi.None}}, nil
	}
	ctx, cancel := context.WithTimeout(ctx, askLimit)
	defer cancel()
	if s.a.GetLaunch() == wire.LaunchMode_LAUNCH_PRIMARY {
		// The script calls whichever mpirun it wants: the one on PATH only
		// decides the dialect of GANGWAY_HOSTFILE.
		d := detection{via: viaPrimary}
		if want != mpi.None {
			d.launcher, _ = s.findLauncher(ctx, p, want, mpi.Linkage{})
		}
		return d, nil
	}
	link, known := s.linkage(ctx, p, p.program)
	if s.a.GetLaunchVia() == askPMI && known != linksNone {
		if known == unknown {
			_, link, _ = s.argumentLinkage(ctx, p)
		}
		return s.pmiForced(want, link)
	}
	if known == linksMPI {
		if d, ok := s.pmiByLibrary(want, link); ok {
			return d, nil
		}
	}
	d := detection{via: viaMPIRun}
	switch known {
	case linksMPI:
		d.linked = link.String()
	case unknown:
		if name, of, ok := s.argumentLinkage(ctx, p); ok {
			return s.detectArgument(ctx, p, want, name, of)
		}
	}
	if known == linksNone && want == "" {
		d.via, d.linked, d.launcher = viaDirect, "none", mpi.Launcher{Flavour: mpi.None}
		return d, nil
	}
	l, err := s.findLauncher(ctx, p, want, link)
	var mismatch *mpi.MismatchError
	switch {
	case err == nil:
		d.launcher = l
		return s.pmiByLauncher(d), nil
	case errors.As(err, &mismatch):
		return d, failed(wire.FailureCode_FAILURE_MPI_MISMATCH, s.nodeName(), err.Error(), "")
	case known == unknown && want == "" && errors.Is(err, errNoLauncher):
		d.via, d.launcher = viaDirect, mpi.Launcher{Flavour: mpi.None}
		d.notice = "no mpirun is on the PATH of " + s.nodeName() + ": the ranks are started without MPI"
		return d, nil
	}
	hint := "install it there, or put it on PATH with --setup"
	msg := err.Error()
	if known == linksMPI {
		msg = fmt.Sprintf("the program links %s: %v", link, err)
	}
	return d, failed(wire.FailureCode_FAILURE_MPI_MISSING, s.nodeName(), msg, hint)
}

// argumentLinkage looks for the MPI of a command that starts the program by
// another one: env A=B ./prog, numactl -l ./prog. It returns the first argument
// that is a file and links an MPI.
func (s *shim) argumentLinkage(ctx context.Context, p *prepared) (string, mpi.Linkage, bool) {
	args := s.a.GetCommand()[1:]
	for _, word := range args[:min(len(args), maxWords)] {
		path, err := lookProgram(word, p.workdir, p.env)
		if err != nil || strings.HasPrefix(word, "-") || checkProgram(path) != nil {
			continue
		}
		if link, known := s.linkage(ctx, p, path); known == linksMPI {
			return word, link, true
		}
	}
	return "", mpi.Linkage{}, false
}

// detectArgument decides by the MPI that an argument of the command links.
// What the command does with it is not known, so it is refused nothing: a
// launcher that does not fit is warned of.
func (s *shim) detectArgument(ctx context.Context, p *prepared, want mpi.Flavour, name string, link mpi.Linkage) (detection, *wire.Failure) {
	if d, ok := s.pmiByLibrary(want, link); ok {
		d.linked += ", by " + name
		return d, nil
	}
	d := detection{via: viaMPIRun, linked: fmt.Sprintf("%s, by %s", link, name)}
	l, err := s.findLauncher(ctx, p, want, link)
	var mismatch *mpi.MismatchError
	if errors.As(err, &mismatch) {
		d.notice = fmt.Sprintf("%s links %s but is launched by %s: if it is the MPI program, each rank will be alone; choose the other with --mpi, or put the right mpirun first on PATH (for example in --setup)",
			name, link, mismatch.Launcher)
		l, err = mismatch.Launcher, nil
	}
	switch {
	case err == nil:
		d.launcher = l
	case want == "" && errors.Is(err, errNoLauncher):
		d.via, d.launcher = viaDirect, mpi.Launcher{Flavour: mpi.None}
		d.notice = fmt.Sprintf("%s links %s, but no mpirun is on the PATH of %s: the ranks are started without MPI", name, link, s.nodeName())
	default:
		return d, failed(wire.FailureCode_FAILURE_MPI_MISSING, s.nodeName(), err.Error(), "install it there, or put it on PATH with --setup")
	}
	return d, nil
}

var errNoLauncher = errors.New("no MPI launcher is on PATH")

// findLauncher asks the launchers on PATH who they are, best first, and takes
// the first that is wanted and can start the program. A mismatch is told only
// when no other fits.
func (s *shim) findLauncher(ctx context.Context, p *prepared, want mpi.Flavour, link mpi.Linkage) (mpi.Launcher, error) {
	var mismatch error
	other := ""
	asked := map[string]bool{}
	for _, name := range mpi.Candidates(want, link) {
		dirs := filepath.SplitList(getEnv(p.env, "PATH"))
		if filepath.IsAbs(name) {
			dirs = []string{""} // beside the library that the program links
		}
		for _, dir := range dirs {
			path := filepath.Join(dir, name)
			if fi, err := os.Stat(path); err != nil || fi.IsDir() || fi.Mode()&0o111 == 0 || !filepath.IsAbs(path) {
				continue
			}
			path = resolveAlternatives(path)
			if asked[path] {
				continue
			}
			asked[path] = true
			l, err := s.askLauncher(ctx, p, path)
			if err != nil {
				continue
			}
			if want != "" && l.Flavour != want {
				other = l.String()
				continue
			}
			if err := mpi.Compatible(l, link); err != nil {
				if mismatch == nil {
					mismatch = err
				}
				continue
			}
			return l, nil
		}
	}
	switch {
	case mismatch != nil:
		return mpi.Launcher{}, mismatch
	case want != "" && other != "":
		return mpi.Launcher{}, fmt.Errorf("%w of %s's kind, only %s", errNoLauncher, want, other)
	case want != "":
		return mpi.Launcher{}, fmt.Errorf("%w of %s's kind", errNoLauncher, want)
	}
	return mpi.Launcher{}, errNoLauncher
}

// resolveAlternatives follows links through /etc/alternatives, which the last
// installed MPI owns, but no further: the launcher's helpers stand beside the
// name that its package gave it.
func resolveAlternatives(path string) string {
	for range 8 {
		to, err := os.Readlink(path)
		if err != nil {
			break
		}
		if !filepath.IsAbs(to) {
			to = filepath.Join(filepath.Dir(path), to)
		}
		if !strings.HasPrefix(to, "/etc/alternatives/") && !strings.HasPrefix(path, "/etc/alternatives/") {
			break
		}
		path = to
	}
	return path
}

// askLauncher runs path --version.
func (s *shim) askLauncher(ctx context.Context, p *prepared, path string) (mpi.Launcher, error) {
	out, err := s.output(ctx, path, []string{path, "--version"}, mpi.Scrub(p.env))
	if err != nil {
		return mpi.Launcher{}, err
	}
	f, v, err := mpi.ParseVersion(out)
	return mpi.Launcher{Flavour: f, Version: v, Path: path}, err
}

// output runs a short command and returns what it writes, however it ends. At
// the end of ctx it is killed.
func (s *shim) output(ctx context.Context, path string, args, env []string) (string, error) {
	p, pipes, err := startPiped(s.forker, proc.Cmd{Path: path, Args: args, Env: env, Dir: "/", NewSession: true, KillWithParent: true})
	if err != nil {
		return "", err
	}
	_ = pipes[0].Close()
	defer pipes[1].Close()
	defer pipes[2].Close()
	stop := context.AfterFunc(ctx, func() {
		_, _ = proc.KillTree(p.Pid(), time.Second)
		// What it left behind may hold the pipes.
		_ = pipes[1].SetReadDeadline(time.Now().Add(quiet))
		_ = pipes[2].SetReadDeadline(time.Now().Add(quiet))
	})
	defer stop()
	rest := make(chan []byte, 1)
	go func() {
		b, _ := io.ReadAll(io.LimitReader(pipes[2], maxBody))
		rest <- b
	}()
	out, _ := io.ReadAll(io.LimitReader(pipes[1], maxBody))
	out = append(out, <-rest...)
	if _, err := p.Wait(); err != nil {
		return "", err
	}
	if ctx.Err() != nil {
		return "", fmt.Errorf("%s: %w", path, ctx.Err())
	}
	return string(out), nil
}

// linkage finds the MPI library that the program would get. Its own loader is
// asked: it alone knows RUNPATH, LD_LIBRARY_PATH, caches and what libraries
// need in turn (OpenFOAM's solvers link MPI only through a plugin-like library
// that LD_LIBRARY_PATH names).
func (s *shim) linkage(ctx context.Context, p *prepared, program string) (mpi.Linkage, proof) {
	f, err := elf.Open(program)
	if err != nil {
		return mpi.Linkage{}, unknown
	}
	defer f.Close()
	interp := interpreter(f)
	if interp == "" {
		return mpi.Linkage{}, unknown
	}
	var libs []mpi.Library
	out, err := s.output(ctx, interp, []string{interp, "--list", program}, p.env)
	if err == nil {
		libs = parseLoaderList(out)
	}
	if len(libs) == 0 {
		// A foreign loader: what the program names itself must do.
		names, err := f.ImportedLibraries()
		if err != nil {
			return mpi.Linkage{}, unknown
		}
		for _, n := range names {
			libs = append(libs, mpi.Library{Soname: n})
		}
	}
	if k, ok := mpi.Classify(libs); ok {
		return k, linksMPI
	}
	if err != nil || mayLoad(f, libs) {
		return mpi.Linkage{}, unknown
	}
	return mpi.Linkage{}, linksNone
}

func interpreter(f *elf.File) string {
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP && p.Filesz < 4096 {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err == nil {
				return string(bytes.TrimRight(b, "\x00"))
			}
		}
	}
	return ""
}

// "libm.so.6 => /lib/libm.so.6 (0x…)", "libx.so => not found".
var loaderLine = regexp.MustCompile(`(?m)^\s*(\S+) => (?:(/.*?) \(0x[0-9a-f]+\)|not found)\s*$`)

func parseLoaderList(out string) []mpi.Library {
	var libs []mpi.Library
	for _, m := range loaderLine.FindAllStringSubmatch(out, -1) {
		libs = append(libs, mpi.Library{Soname: m[1], Path: m[2]})
	}
	return libs
}

// mayLoad says whether the program can bring in an MPI that it does not link:
// by dlopen, as interpreters do, or by starting another program, as env, time
// and shells do. The C library's own files are left out: they offer these
// calls to everybody.
func mayLoad(f *elf.File, libs []mpi.Library) bool {
	if imports(f) {
		return true
	}
	for _, l := range libs {
		if basic.MatchString(l.Soname) || l.Path == "" {
			continue
		}
		g, err := elf.Open(l.Path)
		if err != nil {
			return true
		}
		yes := imports(g)
		_ = g.Close()
		if yes {
			return true
		}
	}
	return false
}

var (
	basic   = regexp.MustCompile(`^(libc|libm|libdl|libpthread|librt|libresolv|libutil|libnsl|libgcc_s|libstdc\+\+|libgomp|libselinux|libcap|libpcre2-8|linux-vdso|ld-linux\S*|ld-musl\S*)\.so`)
	loading = regexp.MustCompile(`^(dlopen|dlmopen|exec(v|l|ve|vp|vpe|lp|le|veat)|fexecve|posix_spawnp?|system|popen)$`)
)

func imports(f *elf.File) bool {
	syms, err := f.ImportedSymbols()
	if err != nil {
		return !errors.Is(err, elf.ErrNoSymbols)
	}
	for _, s := range syms {
		if loading.MatchString(s.Name) {
			return true
		}
	}
	return false
}
