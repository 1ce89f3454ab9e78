package shim

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"gangway/nodeagent/wire"
)

// Names in a task's directory. They are Azure Batch's.
const (
	stdoutName = "stdout.txt"
	stderrName = "stderr.txt"
	workName   = "wd"
)

// output is where what the ranks write goes.
type output interface {
	// write takes a piece of a stream, waiting if it must. data must not be
	// changed afterwards.
	write(rank int32, stream wire.Stream, data []byte, eof bool)
	// reader registers the reader of a pipe; its end is told by done.
	reader() (done func())
}

// taskDir is the directory of a task whose output nobody waits for: it goes
// to files there. What can't be written is dropped and counted, for a full disk
// must neither stop the ranks nor fail them.
type taskDir struct {
	box  *outbox // knows of the readers
	path string

	mu    sync.Mutex
	files [2]outFile // by stream
}

type outFile struct {
	f    *os.File
	lost uint64 // bytes
	err  error  // the first
}

// openTaskDir makes the task's directory what a new attempt finds: the working
// directory and the files, all of them empty. path exists and belongs to this user.
func openTaskDir(box *outbox, path string) (*taskDir, error) {
	if err := empty(path); err != nil {
		return nil, err
	}
	if err := os.Mkdir(filepath.Join(path, workName), 0o700); err != nil {
		return nil, err
	}
	t := &taskDir{box: box, path: path}
	for i, name := range []string{stdoutName, stderrName} {
		// Appending keeps what is written whole when the task cuts its own log.
		f, err := os.OpenFile(filepath.Join(path, name), os.O_CREATE|os.O_EXCL|os.O_WRONLY|os.O_APPEND, 0o600)
		if err != nil {
			t.close()
			return nil, err
		}
		t.files[i].f = f
	}
	return t, nil
}

// empty removes what an earlier attempt left in dir.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		p := filepath.Join(dir, e.Name())
		if err := os.RemoveAll(p); err == nil {
			continue
		}
		// A program may have left directories that not even their owner may
		// write to.
		_ = filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if d != nil && d.IsDir() {
				_ = os.Chmod(path, 0o700)
			}
			if err != nil && d != nil && d.IsDir() {
				return fs.SkipDir
			}
			return nil
		})
		if err := os.RemoveAll(p); err != nil {
			return err
		}
	}
	return nil
}

func (t *taskDir) reader() (done func()) { return t.box.reader() }

func (t *taskDir) write(_ int32, stream wire.Stream, data []byte, _ bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	o := &t.files[stream&1]
	if len(data) == 0 || o.f == nil {
		return
	}
	n, err := o.f.Write(data)
	if err != nil {
		o.lost += uint64(len(data) - n)
		if o.err == nil {
			o.err = err
		}
	}
}

// warnings says what was lost.
func (t *taskDir) warnings(node string) []string {
	if t == nil {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	var out []string
	for _, o := range t.files {
		if o.err == nil {
			continue
		}
		hint := ""
		if isFull(o.err) {
			hint = "; free space there"
		}
		out = append(out, fmt.Sprintf("%s: %d bytes of the task's output were lost: %v%s", node, o.lost, o.err, hint))
	}
	return out
}

func (t *taskDir) close() {
	if t == nil {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for i := range t.files {
		if t.files[i].f != nil {
			_ = t.files[i].f.Close()
			t.files[i].f = nil
		}
	}
}

// kept says whether the task's output goes to files.
func (s *shim) kept() bool { return s.start.GetTaskPath() != "" && !s.a.GetPlanOnly() }

// openTask makes the task's directory ready, or says why it can't be.
func (s *shim) openTask() (*taskDir, *wire.Failure) {
	if s.isCrew() {
		return nil, s.openCrewTask()
	}
	if !s.kept() {
		return nil, nil
	}
	t, err := openTaskDir(s.box, s.start.GetTaskPath())
	if err == nil {
		return t, nil
	}
	code, hint := wire.FailureCode_FAILURE_INTERNAL, ""
	switch {
	case isFull(err):
		code, hint = wire.FailureCode_FAILURE_DISK, "free space there"
	case errors.Is(err, fs.ErrPermission):
		code, hint = wire.FailureCode_FAILURE_DISK, "its files must belong to the user that the task runs as"
	}
	return nil, failed(code, s.nodeName(), fmt.Sprintf("the task's directory can't be made: %v", err), hint)
}

// sink is where the ranks' streams go.
func (s *shim) sink() output {
	if s.task != nil {
		return s.task
	}
	return s.box
}

// mainStdout is the stream that the main process's stdout becomes. What mpirun
// itself says is no output of the task's.
func (s *shim) mainStdout() wire.Stream {
	if s.task != nil && s.via == viaMPIRun {
		return wire.Stream_STREAM_STDERR
	}
	return wire.Stream_STREAM_STDOUT
}

// keptVars are what a kept task's processes find in their environment, under
// the names of Azure Batch too.
func (s *shim) keptVars() []string {
	if !s.kept() {
		return nil
	}
	path := s.start.GetTaskPath()
	wd := s.a.GetWorkdir()
	if wd == "" {
		wd = filepath.Join(path, workName)
	}
	return []string{
		"GANGWAY_TASK_DIR=" + path,
		"GANGWAY_POOL=" + s.a.GetPool(),
		"AZ_BATCH_TASK_DIR=" + path,
		"AZ_BATCH_TASK_WORKING_DIR=" + wd,
		"AZ_BATCH_NODE_ROOT_DIR=" + s.start.GetTaskRoot(),
		"AZ_BATCH_NODE_SHARED_DIR=" + filepath.Join(s.start.GetTaskRoot(), wire.SharedDir),
		"AZ_BATCH_POOL_ID=" + s.a.GetPool(),
		"AZ_BATCH_JOB_ID=" + s.a.GetJob(),
		"AZ_BATCH_TASK_ID=" + s.a.GetTask(),
		"AZ_BATCH_NODE_ID=" + s.nodeName(),
		"AZ_BATCH_NODE_IS_DEDICATED=true",
	}
}

// keptGangVars are those that need the gang's members.
func (s *shim) keptGangVars() []string {
	if s.task == nil || len(s.peers) < 2 {
		return nil
	}
	return append(s.hostVars(), "AZ_BATCH_IS_CURRENT_NODE_MASTER="+strconv.FormatBool(s.primary()))
}

// hostVars name the gang's nodes as Azure Batch and HPC Pack do.
func (s *shim) hostVars() []string {
	var hosts, ccp []string
	for _, p := range s.peers {
		hosts = append(hosts, p.GetAddress())
		ccp = append(ccp, p.GetAddress()+" "+strconv.Itoa(int(p.GetRanks())))
	}
	return []string{
		"AZ_BATCH_HOST_LIST=" + strings.Join(hosts, ","),
		"AZ_BATCH_NODE_LIST=" + strings.Join(hosts, ";"),
		"AZ_BATCH_MASTER_NODE=" + s.peers[0].GetAddress() + ":" + strconv.Itoa(int(s.peers[0].GetPort())),
		"AZ_BATCH_TASK_SHARED_DIR=" + filepath.Join(s.a.GetNodeDir(), "tmp"),
		"CCP_NODES=" + strconv.Itoa(len(s.peers)) + " " + strings.Join(ccp, " "),
	}
}
