package shim

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"gangway/mpi"
	"gangway/mpi/preflight"
	"gangway/nodeagent/mesh"
	"gangway/nodeagent/proc"
	"gangway/nodeagent/wire"
	"gangway/topology"
	"gangway/topology/bind"
)

// prepared is what preparing found.
type prepared struct {
	env     []string // the user's, after the set-up script
	workdir string
	program string // absolute
	places  []bind.Place
	gpuVars []string        // of a command that places its ranks itself
	cpus    topology.CPUSet // granted
	mpi     detection       // on the primary
	mesh    *mesh.Mesh      // nil: a gang of one
	task    *taskDir        // nil: output is streamed
	facts   <-chan preflight.Facts
}

const (
	// setupLimit is how long a set-up script may take if the launch has no
	// deadline of its own.
	setupLimit = 60 * time.Second
	// fileLimit is how long the program may be on its way.
	fileLimit = 10 * time.Minute
)

// prepare looks at everything that can go wrong on the node before anything is
// started. It runs beside run.
func (s *shim) prepare(ctx context.Context) {
	task, failure := s.openTask()
	var p *prepared
	if failure == nil && s.isCrew() {
		p, failure = s.prepareCrew(ctx)
	} else if failure == nil {
		if p, failure = s.prepareAll(ctx); p != nil {
			p.task = task
		}
	}
	if failure != nil {
		task.close()
	}
	posted := s.post(func() {
		if failure != nil {
			s.notReady(failure)
			return
		}
		s.ready(p)
	})
	if !posted && p != nil {
		p.task.close()
		if p.mesh != nil {
			_ = p.mesh.Close()
		}
	}
}

func (s *shim) prepareAll(ctx context.Context) (*prepared, *wire.Failure) {
	node := s.nodeName()
	p := new(prepared)
	fail := func(code wire.FailureCode, message, hint string) (*prepared, *wire.Failure) {
		return nil, failed(code, node, message, hint)
	}
	var err error
	if p.cpus, err = topology.ParseCPUSet(s.a.GetCpus()); err != nil {
		return fail(wire.FailureCode_FAILURE_INTERNAL, "the granted cpus can't be read: "+err.Error(), "")
	}
	if _, err := ownRanks(s.a); err != nil {
		return fail(wire.FailureCode_FAILURE_INTERNAL, "the ranks of this node can't be read: "+err.Error(), "")
	}
	if len(s.a.GetCommand()) == 0 {
		return fail(wire.FailureCode_FAILURE_NOT_FOUND, "no command was given", "")
	}
	var failure *wire.Failure
	if p.workdir, failure = s.workdir(); failure != nil {
		return nil, failure
	}
	if p.env, failure = s.environment(ctx, p.workdir); failure != nil {
		return nil, failure
	}
	if s.a.GetLaunch() == wire.LaunchMode_LAUNCH_RANKS && s.a.GetNodeRanks() > 0 {
		p.places, err = s.mapRanks(p.cpus)
	} else if s.a.GetLaunch() == wire.LaunchMode_LAUNCH_PRIMARY {
		p.gpuVars, err = s.primaryVars(p.env)
	}
	if err != nil {
		return fail(wire.FailureCode_FAILURE_BINDING, err.Error(), "")
	}
	if s.a.GetBcast() {
		if p.program, failure = s.receive(ctx); failure != nil {
			return nil, failure
		}
	} else if p.program, err = lookProgram(s.a.GetCommand()[0], p.workdir, p.env); err != nil {
		return nil, s.hinted(programFailure(node, err))
	}
	if err := checkProgram(p.program); err != nil {
		return nil, s.hinted(programFailure(node, err))
	}
	if s.preflightMode() != preflightOff {
		p.facts = s.gather(ctx, p)
	}
	if s.primary() {
		if p.mpi, failure = s.detect(ctx, p); failure != nil {
			return nil, failure
		}
	}
	if s.a.GetNodeCount() > 1 && !s.a.GetPlanOnly() {
		addr, err := netip.ParseAddr(s.a.GetAddress())
		if err != nil {
			return fail(wire.FailureCode_FAILURE_NETWORK, fmt.Sprintf("the node's data address %q can't be read: %v", s.a.GetAddress(), err), "")
		}
		if p.mesh, err = mesh.Listen(addr, s.a.GetMeshKey(), int(s.a.GetNodeIndex())); err != nil {
			return fail(wire.FailureCode_FAILURE_NETWORK, err.Error(), "")
		}
	}
	return p, nil
}

func (s *shim) notReady(f *wire.Failure) {
	if s.ending {
		return
	}
	s.box.say(&wire.FromShim{M: &wire.FromShim_Ready{Ready: &wire.Ready{Failure: f}}})
	s.end(f, false)
}

func (s *shim) ready(p *prepared) {
	s.prep, s.mesh, s.task = p, p.mesh, p.task
	if s.ending {
		return
	}
	r := &wire.Ready{}
	if s.isCrew() {
		if f := s.makeCrew(p); f != nil {
			s.notReady(f)
			return
		}
		s.setPhase(wire.Phase_PHASE_READY)
		s.box.say(&wire.FromShim{M: &wire.FromShim_Ready{Ready: r}})
		return
	}
	if p.mesh != nil {
		r.MeshPort = uint32(p.mesh.Port())
	}
	r.Ranks = s.wirePlaces(p)
	s.setPhase(wire.Phase_PHASE_READY)
	s.box.say(&wire.FromShim{M: &wire.FromShim_Ready{Ready: r}})
}

// workdir is where the command runs: a directory that can be entered.
func (s *shim) workdir() (string, *wire.Failure) {
	dir := s.a.GetWorkdir()
	if dir == "" && s.kept() {
		dir = filepath.Join(s.start.GetTaskPath(), workName)
	}
	if dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			home = "/"
		}
		dir = home
	}
	// The dot asks for the permission to enter, not only to see.
	if _, err := os.Stat(dir + "/."); err != nil {
		var pe *fs.PathError
		if errors.As(err, &pe) {
			err = pe.Err
		}
		return "", failed(wire.FailureCode_FAILURE_WORKDIR, s.nodeName(),
			fmt.Sprintf("the working directory %s can't be used: %v", dir, err),
			"create it there, or give one that every node has")
	}
	return dir, nil
}

// environment is what the set-up script makes of the inherited environment,
// with the user's settings on top.
func (s *shim) environment(ctx context.Context, workdir string) ([]string, *wire.Failure) {
	base, over := os.Environ(), s.a.GetEnv()
	if b := s.a.GetEnvBase(); len(b) > 0 {
		base = b
	}
	var own []string
	for _, kv := range mpi.Scrub(base) {
		if !strings.HasPrefix(kv, "GANGWAY_") {
			own = append(own, kv)
		}
	}
	if s.shm != "" {
		own = mergeEnv(mpi.SharedMemory(s.shm), own) // what the user has set stays
	}
	env := mergeEnv(own, s.gangVars())
	if len(s.a.GetSetupScript()) > 0 {
		var failure *wire.Failure
		if env, failure = s.setup(ctx, env, workdir); failure != nil {
			return nil, failure
		}
	}
	return mergeEnv(env, over), nil
}

// gangVars are the variables by which a process finds its gang.
func (s *shim) gangVars() []string {
	dir := s.a.GetNodeDir()
	return append([]string{
		"GANGWAY_ID=" + s.a.GetId(),
		"GANGWAY_DIR=" + dir,
		"GANGWAY_JOB=" + s.a.GetJob(),
		"GANGWAY_TASK=" + s.a.GetTask(),
		"GANGWAY_NODE=" + s.nodeName(),
		"GANGWAY_NODE_INDEX=" + strconv.Itoa(int(s.a.GetNodeIndex())),
		"GANGWAY_NNODES=" + strconv.Itoa(int(s.a.GetNodeCount())),
		"GANGWAY_NRANKS=" + strconv.Itoa(int(s.a.GetTotalRanks())),
		"TMPDIR=" + filepath.Join(dir, "tmp"),
	}, s.keptVars()...)
}

// mergeEnv returns base with over's entries replacing or following it.
func mergeEnv(base, over []string) []string {
	place := make(map[string]int, len(base))
	out := make([]string, 0, len(base)+len(over))
	for _, list := range [][]string{base, over} {
		for _, kv := range list {
			name, _, ok := strings.Cut(kv, "=")
			if !ok || name == "" {
				continue
			}
			if i, ok := place[name]; ok {
				out[i] = kv
				continue
			}
			place[name] = len(out)
			out = append(out, kv)
		}
	}
	return out
}

// getEnv returns a variable's value, "" when it is not there.
func getEnv(env []string, name string) string {
	for _, kv := range env {
		if v, ok := strings.CutPrefix(kv, name+"="); ok {
			return v
		}
	}
	return ""
}

// setup sources the set-up script and returns the environment after it. Its
// output goes to a file, the environment to another: a script that prints, or
// that leaves a process behind, disturbs neither.
func (s *shim) setup(ctx context.Context, env []string, workdir string) ([]string, *wire.Failure) {
	dir := s.a.GetNodeDir()
	script, out, result := filepath.Join(dir, "setup"), filepath.Join(dir, "setup.out"), filepath.Join(dir, "setup.env")
	name := s.a.GetSetupName()
	if name == "" {
		name = "the set-up script"
	}
	fail := func(format string, args ...any) ([]string, *wire.Failure) {
		said, _ := os.ReadFile(out)
		msg := fmt.Sprintf("%s: %s", name, fmt.Sprintf(format, args...))
		if l := lastLines(string(said)); l != "" {
			msg += "\n" + l
		}
		return nil, failed(wire.FailureCode_FAILURE_SETUP, s.nodeName(), msg, "it is sourced by "+setupShell(s.a.GetSetupScript())+" on every node; its last command must succeed")
	}
	if err := os.WriteFile(script, s.a.GetSetupScript(), 0o600); err != nil {
		return fail("%v", err)
	}
	defer os.Remove(script)
	defer os.Remove(result)
	log, err := os.OpenFile(out, os.O_CREATE|os.O_TRUNC|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return fail("%v", err)
	}
	defer log.Close()
	shell := setupShell(s.a.GetSetupScript())
	// The positional parameters are the script's: it must see none.
	text := fmt.Sprintf(`. %s; gangway_status=$?; [ $gangway_status -eq 0 ] || exit $gangway_status; unset gangway_status; exec %s %s > %s`,
		quote(script), quote(filepath.Join(dir, RankName)), environFlag, quote(result))
	p, err := s.forker.Start(proc.Cmd{Path: shell, Args: []string{filepath.Base(shell), "-c", text}, Env: env, Dir: workdir,
		Stdout: log, Stderr: log, NewSession: true, KillWithParent: true})
	if err != nil {
		return fail("%v", err)
	}
	limit := time.Duration(s.a.GetLaunchDeadlineMs()) * time.Millisecond
	if limit <= 0 {
		limit = setupLimit
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	stop := context.AfterFunc(ctx, func() { _, _ = proc.KillTree(p.Pid(), 2*time.Second) })
	st, err := p.Wait()
	stop()
	switch {
	case ctx.Err() != nil:
		return fail("it did not end within %v", limit)
	case err != nil:
		return fail("%v", err)
	case st.Signal != 0:
		return fail("it was ended by signal %d", st.Signal)
	case st.ExitCode != 0:
		return fail("it ended with status %d", st.ExitCode)
	}
	b, err := os.ReadFile(result)
	if err != nil {
		return fail("it ended before its end: %v", errors.New("it must not call exit or exec"))
	}
	var after []string
	for e := range bytes.SplitSeq(b, []byte{0}) {
		if kv := string(e); kv != "" && !strings.HasPrefix(kv, "_=") && !strings.HasPrefix(kv, "SHLVL=") {
			after = append(after, kv)
		}
	}
	// What the script inherited from the node's modules may be a scheduler's.
	return mergeEnv(mpi.Scrub(after), s.gangVars()), nil
}

// setupShell is the script's own interpreter when it is a shell that sources
// as sh does, else /bin/sh.
func setupShell(script []byte) string {
	line, _, _ := bytes.Cut(script, []byte("\n"))
	if w := strings.Fields(strings.TrimPrefix(string(line), "#!")); bytes.HasPrefix(line, []byte("#!")) && len(w) > 0 {
		shell := w[0]
		if filepath.Base(shell) == "env" && len(w) > 1 {
			shell = "/bin/" + w[1]
		}
		switch filepath.Base(shell) {
		case "bash", "ksh", "zsh", "dash":
			if _, err := os.Stat(shell); err == nil {
				return shell
			}
		}
	}
	return "/bin/sh"
}

func quote(s string) string { return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'" }

// receive waits for the program that the launcher sends.
func (s *shim) receive(ctx context.Context) (string, *wire.Failure) {
	t := time.NewTimer(fileLimit)
	defer t.Stop()
	err := errors.New("it did not come")
	s.files.ask()
	select {
	case r := <-s.files.result:
		if r.err == nil {
			return r.path, nil
		}
		err = r.err
	case <-ctx.Done():
		err = ctx.Err()
	case <-t.C:
	}
	code, hint := wire.FailureCode_FAILURE_NOT_FOUND, ""
	if isFull(err) {
		code, hint = wire.FailureCode_FAILURE_DISK, "free space there or give --tmpdir another local directory"
	}
	return "", failed(code, s.nodeName(), fmt.Sprintf("the program could not be copied to the node: %v", err), hint)
}

func programFailure(node string, err error) *wire.Failure {
	f := failed(wire.FailureCode_FAILURE_NOT_FOUND, node, err.Error(), "")
	var se *proc.StartError
	if errors.As(err, &se) {
		f.Hint = se.Hint
		se.Hint = ""
		f.Message = se.Error()
		if errors.Is(err, proc.ErrNotExecutable) {
			f.Code = wire.FailureCode_FAILURE_NOT_EXECUTABLE
		}
	}
	return f
}

// lookProgram finds a command's program: names with a slash are relative to
// the working directory, others are looked for on the environment's PATH.
func lookProgram(name, workdir string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			name = filepath.Join(workdir, name)
		}
		return name, nil
	}
	path := getEnv(env, "PATH")
	if path == "" {
		path = "/usr/local/bin:/usr/bin:/bin"
	}
	var plain string // found without the x bit
	for _, dir := range filepath.SplitList(path) {
		if !filepath.IsAbs(dir) {
			dir = filepath.Join(workdir, dir)
		}
		p := filepath.Join(dir, name)
		fi, err := os.Stat(p)
		if err != nil || fi.IsDir() {
			continue
		}
		if fi.Mode()&0o111 != 0 {
			return p, nil
		}
		if plain == "" {
			plain = p
		}
	}
	if plain != "" {
		return plain, nil
	}
	hint := hintPath
	if _, err := os.Stat(filepath.Join(workdir, name)); err == nil {
		hint = "it is in the working directory: write ./" + name
	}
	return "", &proc.StartError{Path: name, Kind: proc.ErrNotFound, Hint: hint}
}

// checkProgram refuses what exec would refuse.
func checkProgram(path string) error {
	bad := func(kind, err error, hint string) error {
		return &proc.StartError{Path: path, Kind: kind, Err: err, Hint: hint}
	}
	fi, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return bad(proc.ErrNotExecutable, fs.ErrPermission, "a directory on the way to it can't be entered")
	case err != nil:
		return bad(proc.ErrNotFound, nil, hintInstall)
	case fi.IsDir():
		return bad(proc.ErrNotExecutable, nil, "it is a directory")
	case !fi.Mode().IsRegular():
		return bad(proc.ErrNotExecutable, nil, "it is not a regular file")
	case fi.Mode()&0o111 == 0:
		return bad(proc.ErrNotExecutable, nil, "it has no x bit; chmod +x "+path)
	}
	f, err := os.Open(path)
	if err != nil {
		return nil // a program may be executable and not readable
	}
	defer f.Close()
	head := make([]byte, 256)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return bad(proc.ErrNotExecutable, err, "")
	}
	head = head[:n]
	line, script := bytes.CutPrefix(head, []byte("#!"))
	if !script {
		if !bytes.HasPrefix(head, []byte("\x7fELF")) {
			return bad(proc.ErrNotExecutable, nil, "it is no program; a script needs a first line such as #!/bin/sh")
		}
		return nil
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	w := strings.Fields(string(line))
	if len(w) == 0 {
		return bad(proc.ErrNotExecutable, nil, "its first line names no interpreter")
	}
	if _, err := os.Stat(w[0]); err != nil {
		hint := "its first line asks for " + w[0] + ", which is not there"
		if bytes.HasSuffix(line, []byte("\r")) {
			hint += "; the file has Windows line ends"
		}
		return bad(proc.ErrNotFound, nil, hint)
	}
	return nil
}
