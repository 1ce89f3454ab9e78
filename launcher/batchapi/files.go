package batchapi

import (
	"fmt"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/job"
)

// fileEntity is a file as clients see it in lists.
type fileEntity struct {
	Name       string          `json:"name"`
	URL        string          `json:"url"`
	Dir        bool            `json:"isDirectory"`
	Properties *fileProperties `json:"properties,omitempty"`
}

// fileProperties has the length as a string: that is how OData 3 writes 64 bits.
type fileProperties struct {
	Created  string `json:"creationTime,omitempty"`
	Modified string `json:"lastModified,omitempty"`
	Size     string `json:"contentLength"`
	Type     string `json:"contentType,omitempty"`
	Mode     string `json:"fileMode,omitempty"`
}

// fileType is the media type of every file: what tasks write is not guessed at.
const fileType = "application/octet-stream"

// root is where the files that the path names are, and their address.
func (c *call) root() (FileRoot, string, error) {
	if c.params["jobId"] != "" {
		j, t, err := c.task()
		return FileRoot{Job: j.ID, Task: t.ID}, c.link("jobs", j.ID, "tasks", t.ID, "files"), err
	}
	p, n, err := c.node()
	return FileRoot{Pool: p.ID, Node: n.ID}, c.link("pools", p.ID, "nodes", n.ID, "files"), err
}

// filePath is the file that the path names.
func (c *call) filePath() (string, error) {
	name := c.params["filePath"]
	clean := path.Clean("/" + name)[1:]
	if clean == "" || clean != strings.Trim(name, "/") || strings.ContainsRune(name, '\\') {
		return "", &NotFound{KindFile, name}
	}
	return clean, nil
}

func escapePath(p string) string {
	parts := strings.Split(p, "/")
	for i, s := range parts {
		parts[i] = url.PathEscape(s)
	}
	return strings.Join(parts, "/")
}

func (c *call) listFiles() error {
	recursive, err := c.flag("recursive")
	if err != nil {
		return err
	}
	root, base, err := c.root()
	if err != nil {
		return err
	}
	all, err := c.s.Backend.ListFiles(c.ctx(), root, "", recursive)
	if err != nil {
		return err
	}
	name := func(f *File) string { return f.Name }
	return writeList(c, lister[File]{
		set: "files", fetch: slicePage(all, name), cursor: name,
		fields: fields[File]{
			"name":                     {text: func(f *File) (string, bool) { return f.Name, true }},
			"isDirectory":              {flag: func(f *File) bool { return f.Dir }},
			"properties/contentLength": {number: func(f *File) (float64, bool) { return float64(f.Size), !f.Dir }},
			"properties/lastModified":  {time: func(f *File) time.Time { return f.Modified }},
			"properties/creationTime":  {time: func(f *File) time.Time { return f.Created }},
		},
		render: func(f *File) any {
			e := fileEntity{Name: f.Name, URL: base + "/" + escapePath(f.Name), Dir: f.Dir}
			if !f.Dir {
				e.Properties = &fileProperties{when(f.Created), when(f.Modified), strconv.FormatInt(f.Size, 10), fileType, fileMode(f.Mode)}
			}
			return e
		},
	})
}

func fileMode(m uint32) string {
	if m == 0 {
		return ""
	}
	return fmt.Sprintf("0o%06o", m)
}

// file returns the file that the path names and sets the headers that describe it.
func (c *call) file() (FileRoot, File, error) {
	name, err := c.filePath()
	if err != nil {
		return FileRoot{}, File{}, err
	}
	root, base, err := c.root()
	if err != nil {
		return root, File{}, err
	}
	f, err := c.s.Backend.StatFile(c.ctx(), root, name)
	if err != nil {
		return root, f, err
	}
	f.Name = name
	if _, err := c.condition(fileVersion(f), f.Modified); err != nil {
		return root, f, err
	}
	c.object(fileVersion(f), f.Modified)
	h := c.w.Header()
	h.Set("ocp-creation-time", firstTime(f.Created, f.Modified).UTC().Format(http.TimeFormat))
	h.Set("ocp-batch-file-isdirectory", map[bool]string{true: "True", false: "False"}[f.Dir])
	h.Set("ocp-batch-file-url", base+"/"+escapePath(name))
	h.Set("ocp-batch-file-mode", fileMode(f.Mode))
	return root, f, nil
}

// fileVersion changes when a file is written to.
func fileVersion(f File) Version {
	return Version(uint64(f.Modified.UnixNano()) ^ uint64(f.Size)<<1 | 1)
}

func (c *call) fileProperties() error {
	_, f, err := c.file()
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", fileType)
	h.Set("Content-Length", strconv.FormatInt(f.Size, 10))
	if f.Dir {
		h.Set("Content-Length", "0")
	}
	c.w.WriteHeader(http.StatusOK)
	return nil
}

// getFile answers with the file, or the range of it that ocp-range or Range asks
// for. Batch answers 200 to ocp-range; Range gets HTTP's 206.
func (c *call) getFile() error {
	name, value := "ocp-range", c.Header.Get("ocp-range")
	if value == "" {
		name, value = "Range", c.Header.Get("Range")
	}
	root, f, err := c.file()
	if err != nil {
		return err
	}
	if f.Dir {
		return &Conflict{CodeWrongState, "This is a folder; list the files with $filter=startswith(name,'" + f.Name + "/')&recursive=true."}
	}
	off, end := int64(0), f.Size
	status := http.StatusOK
	if value != "" {
		if off, end, err = parseRange(value, f.Size); err != nil {
			bad := newFault(http.StatusRequestedRangeNotSatisfiable, "InvalidRange", "The range specified is invalid for the current size of the resource.",
				detail{"HeaderName", name}, detail{"HeaderValue", shorten(value)}, detail{"Reason", err.Error()})
			bad.header = http.Header{"Content-Range": {fmt.Sprintf("bytes */%d", f.Size)}}
			return bad
		}
		if name == "Range" {
			status = http.StatusPartialContent
		}
		c.w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, end-1, f.Size))
	}
	// The first piece is read before the answer begins, so that a node that is
	// away gives an error and not half an answer.
	b, err := c.piece(root, f.Name, off, end)
	if err != nil {
		return err
	}
	h := c.w.Header()
	h.Set("Content-Type", fileType)
	h.Set("Content-Length", strconv.FormatInt(end-off, 10))
	c.w.WriteHeader(status)
	for {
		if _, err := c.w.Write(b); err != nil {
			return nil // the client is gone
		}
		if off += int64(len(b)); off == end {
			return nil
		}
		if b, err = c.piece(root, f.Name, off, end); err != nil || len(b) == 0 {
			c.s.Log.Warn("api: a file ended early", "request", c.id, "file", f.Name, "at", off, "of", end, "err", err)
			panic(http.ErrAbortHandler) // the length is promised: the client must see that it is cut
		}
	}
}

func (c *call) piece(root FileRoot, name string, off, end int64) ([]byte, error) {
	if off == end {
		return nil, nil
	}
	b, err := c.s.Backend.ReadFile(c.ctx(), root, name, off, int(min(end-off, MaxRead)))
	if err == nil && int64(len(b)) > end-off {
		b = b[:end-off]
	}
	return b, err
}

// parseRange reads one range "bytes=a-b" of a file of the given size and returns
// it half open. Ends beyond the file are cut.
func parseRange(s string, size int64) (off, end int64, err error) {
	wrong := fmt.Errorf("allowed is one range as in bytes=0-1023 within %d bytes", size)
	spec, ok := strings.CutPrefix(s, "bytes=")
	first, last, ok2 := strings.Cut(spec, "-")
	if !ok || !ok2 {
		return 0, 0, wrong
	}
	number := func(t string) (int64, bool) {
		n, err := strconv.ParseUint(t, 10, 62)
		return int64(n), err == nil && !strings.HasPrefix(t, "+")
	}
	if first == "" { // the last n bytes
		n, ok := number(last)
		if !ok || n == 0 || size == 0 {
			return 0, 0, wrong
		}
		return max(size-n, 0), size, nil
	}
	off, ok = number(first)
	if !ok || off >= size {
		return 0, 0, wrong
	}
	if last == "" {
		return off, size, nil
	}
	end, ok = number(last)
	if !ok || end < off {
		return 0, 0, wrong
	}
	return off, min(end+1, size), nil
}

func (c *call) deleteFile() error {
	name, err := c.filePath()
	if err != nil {
		return err
	}
	recursive, err := c.flag("recursive")
	if err != nil {
		return err
	}
	root, _, err := c.root()
	if err != nil {
		return err
	}
	if err := c.s.Backend.DeleteFile(c.ctx(), root, name, recursive); err != nil {
		return err
	}
	c.write(http.StatusOK, nil)
	return nil
}

// maxWait is how long a request may wait for a file to grow.
const maxWait = time.Minute

// follow answers with what a file has from an offset on. If there is nothing yet
// it waits, for up to the wait asked for, or until the task is done. The header
// Gangway-Next-Offset says where to go on; Gangway-Done: true that nothing more
// will come; Gangway-Instances on how many nodes the task has such files.
func (c *call) follow() error {
	name, err := c.filePath()
	if err != nil {
		return err
	}
	off, err := strconv.ParseInt(defaultTo(c.query.Get("offset"), "0"), 10, 63)
	if err != nil || off < 0 {
		return badQuery("offset", c.query.Get("offset"), "it is no number of bytes")
	}
	instance, err := strconv.Atoi(defaultTo(c.query.Get("instance"), "0"))
	if err != nil || instance < 0 {
		return badQuery("instance", c.query.Get("instance"), "it is no number of a node of the task, from 0")
	}
	wait, err := time.ParseDuration(defaultTo(c.query.Get("wait"), "0s"))
	if err != nil || wait < 0 || wait > maxWait {
		return badQuery("wait", c.query.Get("wait"), "allowed is a duration such as 30s, up to "+maxWait.String())
	}
	j, t, err := c.task()
	if err != nil {
		return err
	}
	deadline := time.NewTimer(wait)
	defer deadline.Stop()
	again := time.NewTicker(c.s.Poll)
	defer again.Stop()
	for last := wait == 0; ; {
		// Done is asked for first: what the file has after that is all it will have.
		done := t.State == job.TaskCompleted
		b, err := c.s.Backend.ReadFile(c.ctx(), FileRoot{Job: j.ID, Task: t.ID, Instance: instance}, name, off, MaxRead)
		missing := isNotFound(err)
		if err != nil && (!missing || done || last) {
			return err
		}
		if len(b) > 0 || done || last {
			h := c.w.Header()
			h.Set("Content-Type", fileType)
			h.Set("Content-Length", strconv.Itoa(len(b)))
			h.Set("Gangway-Next-Offset", strconv.FormatInt(off+int64(len(b)), 10))
			h.Set("Gangway-Instances", strconv.Itoa(max(t.Instances, 1)))
			h.Set("Gangway-Done", strconv.FormatBool(done && len(b) < MaxRead))
			c.w.WriteHeader(http.StatusOK)
			_, _ = c.w.Write(b)
			return nil
		}
		select {
		case <-c.ctx().Done():
			return &Unavailable{Message: "the request was given up"}
		case <-deadline.C:
			last = true
		case <-again.C:
		}
		if t, err = c.s.Backend.Task(c.ctx(), j.ID, t.ID); err != nil {
			return err
		}
	}
}

func defaultTo(s, d string) string {
	if s == "" {
		return d
	}
	return s
}

type explainBody struct {
	Job  string `json:"job"`
	Task string `json:"task"`
	Explanation
}

func (c *call) explain() error {
	j, t, err := c.task()
	if err != nil {
		return err
	}
	x, err := c.s.Backend.Explain(c.ctx(), j.ID, t.ID)
	if err != nil {
		return err
	}
	c.write(http.StatusOK, explainBody{j.ID, t.ID, x})
	return nil
}
