package launcher

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"
	"syscall"
	"time"

	"gangway/launcher/batchapi"
	"gangway/launcher/job"
	"gangway/nodeagent/wire"
)

// root finds where a path of the API is: a node, and the folder on it.
func (b *backend) root(ctx context.Context, r batchapi.FileRoot) (node, folder string, err error) {
	if r.Task == "" {
		if _, err := b.Node(ctx, r.Pool, r.Node); err != nil {
			return "", "", err
		}
		return r.Node, "", nil
	}
	if x, err := b.element(ctx, r.Job, r.Task); x != nil || err != nil {
		if err != nil {
			return "", "", err
		}
		if r.Instance > 0 {
			return "", "", &batchapi.NotFound{Kind: batchapi.KindFile, ID: fmt.Sprintf("%s of instance %d", r.Task, r.Instance)}
		}
		return x.files()
	}
	v, err := b.view(ctx, r.Job, r.Task)
	if err != nil {
		return "", "", err
	}
	run := b.taskOf(&v).Run
	if run.Node == "" {
		if x := v.Spec.Range; x.Len() > 1 {
			return "", "", &batchapi.Conflict{Code: "TaskFilesUnavailable", Message: fmt.Sprintf("task %s is an array: its elements have files, %s to %s",
				r.Task, job.ElementID(r.Task, x.Lo), job.ElementID(r.Task, x.Hi-1))}
		}
		if v.State == job.TaskCompleted {
			return "", "", &batchapi.Conflict{Code: "TaskFilesCleanedup", Message: "task " + r.Task + " never ran on a node: it has no files"}
		}
		return "", "", &batchapi.Conflict{Code: "TaskFilesUnavailable", Message: "task " + r.Task + " has not started: it has no files yet"}
	}
	if r.Instance > 0 {
		a, err := b.whole(v)
		if err != nil {
			return "", "", err
		}
		if a == nil || r.Instance >= len(a.Parts) {
			return "", "", &batchapi.NotFound{Kind: batchapi.KindFile, ID: fmt.Sprintf("%s of instance %d", r.Task, r.Instance)}
		}
		run = b.placeRun(&v, partRun(&a.Parts[r.Instance], a.Started))
	}
	return run.Node, run.Folder, nil
}

// ask sends a request for files to a node.
func (b *backend) ask(ctx context.Context, node, name string, q *wire.FileRequest) (*wire.FileReply, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	r, err := b.fleet.Files(ctx, node, q)
	if err != nil {
		// One that was removed will not be back: to try again is no use.
		var gone *batchapi.NotFound
		if _, err := b.Node(ctx, b.pool, node); errors.As(err, &gone) {
			return nil, gone
		}
		return nil, nodeError(node, err)
	}
	switch r.GetCode() {
	case wire.FileError_FILE_ERROR_NONE:
		return r, nil
	case wire.FileError_FILE_ERROR_NOT_FOUND, wire.FileError_FILE_ERROR_DENIED:
		return nil, &batchapi.NotFound{Kind: batchapi.KindFile, ID: name}
	case wire.FileError_FILE_ERROR_NOT_EMPTY:
		return nil, &batchapi.Conflict{Code: batchapi.CodeWrongState, Message: name + " is a folder that is not empty: delete it with recursive=true"}
	case wire.FileError_FILE_ERROR_INVALID, wire.FileError_FILE_ERROR_KIND:
		return nil, &batchapi.Invalid{Property: "filePath", Value: name, Reason: r.GetError()}
	}
	return nil, &batchapi.Unavailable{Message: "node " + node + ": " + r.GetError(), RetryAfter: time.Second}
}

func fileOf(e *wire.FileEntry, folder string) batchapi.File {
	f := batchapi.File{Name: strings.TrimPrefix(strings.TrimPrefix(e.GetPath(), folder), "/"), Dir: e.GetDir(), Size: int64(e.GetSize()),
		Modified: time.Unix(0, e.GetMtimeNs()).UTC(), Created: time.Unix(0, e.GetCtimeNs()).UTC()}
	mode := fs.FileMode(e.GetMode())
	f.Mode = uint32(mode.Perm())
	switch {
	case mode.IsDir():
		f.Mode |= syscall.S_IFDIR
	case mode&fs.ModeSymlink != 0:
		f.Mode |= syscall.S_IFLNK
	default:
		f.Mode |= syscall.S_IFREG
	}
	return f
}

func (b *backend) ListFiles(ctx context.Context, r batchapi.FileRoot, name string, recursive bool) ([]batchapi.File, error) {
	node, folder, err := b.root(ctx, r)
	if err != nil {
		return nil, err
	}
	var out []batchapi.File
	q := &wire.FileRequest{Op: wire.FileOp_FILE_OP_LIST, Path: path.Join(folder, name), Recursive: recursive}
	for {
		reply, err := b.ask(ctx, node, name, q)
		if err != nil {
			return nil, err
		}
		for _, e := range reply.GetEntries() {
			out = append(out, fileOf(e, folder))
		}
		if !reply.GetMore() || len(out) >= maxListed {
			return out, nil
		}
		q.Cursor = reply.GetCursor()
	}
}

// maxListed bounds a listing: a task may leave millions of files.
const maxListed = 100_000

func (b *backend) StatFile(ctx context.Context, r batchapi.FileRoot, name string) (batchapi.File, error) {
	node, folder, err := b.root(ctx, r)
	if err != nil {
		return batchapi.File{}, err
	}
	reply, err := b.ask(ctx, node, name, &wire.FileRequest{Op: wire.FileOp_FILE_OP_STAT, Path: path.Join(folder, name)})
	if err != nil {
		return batchapi.File{}, err
	}
	if len(reply.GetEntries()) != 1 {
		return batchapi.File{}, &batchapi.NotFound{Kind: batchapi.KindFile, ID: name}
	}
	return fileOf(reply.GetEntries()[0], folder), nil
}

func (b *backend) ReadFile(ctx context.Context, r batchapi.FileRoot, name string, off int64, n int) ([]byte, error) {
	node, folder, err := b.root(ctx, r)
	if err != nil {
		return nil, err
	}
	if n == 0 {
		return nil, nil // a length of 0 asks the agent for as much as it gives
	}
	reply, err := b.ask(ctx, node, name, &wire.FileRequest{Op: wire.FileOp_FILE_OP_READ, Path: path.Join(folder, name), Offset: uint64(off), Length: uint32(n)})
	if err != nil {
		return nil, err
	}
	return reply.GetData(), nil
}

func (b *backend) DeleteFile(ctx context.Context, r batchapi.FileRoot, name string, recursive bool) error {
	node, folder, err := b.root(ctx, r)
	if err != nil {
		return err
	}
	_, err = b.ask(ctx, node, name, &wire.FileRequest{Op: wire.FileOp_FILE_OP_DELETE, Path: path.Join(folder, name), Recursive: recursive})
	return err
}
