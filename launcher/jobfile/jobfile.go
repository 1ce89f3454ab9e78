// Package jobfile reads job files: YAML that describes a job and its tasks, as
// docs/job-file.md tells users. A job file becomes a job.Spec, or Errors with
// the file, line and column of each problem and what would be right.
package jobfile

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"gangway/launcher/job"
	"gangway/topology/yamltree"
)

// Parse reads the text of a job file; name is the file's, for messages. A file
// that a task sources as its set-up script is not opened but refused. The error
// is of type *Errors.
func Parse(name string, text []byte) (job.Spec, error) { return parse(name, text, nil, nil) }

// ParseIn is Parse, with the files that the job file names read from the
// directory dir unless their paths are absolute.
func ParseIn(dir, name string, text []byte) (job.Spec, error) {
	return parse(name, text, func(path string) ([]byte, error) {
		if !filepath.IsAbs(path) {
			path = filepath.Join(dir, path)
		}
		return readAtMost(path, maxScript)
	}, dirReach(dir))
}

// Load reads the job file at path; the files it names are relative to its
// directory. The error is of type *Errors if the file could be read.
func Load(path string) (job.Spec, error) {
	text, err := ReadFile(path)
	if err != nil {
		return job.Spec{}, err
	}
	return ParseIn(filepath.Dir(path), path, text)
}

// ReadFile returns the text of the job file at path; of one that is too large, as
// much as Parse needs to say so.
func ReadFile(path string) ([]byte, error) {
	text, err := readAtMost(path, MaxSize+1)
	if err != nil {
		return nil, fmt.Errorf("job file: %w; give the path of a file that you can read", err)
	}
	return text, nil
}

// readAtMost reads a file's first n bytes.
func readAtMost(path string, n int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, io.LimitReader(f, n)); err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}

func parse(name string, raw []byte, open func(string) ([]byte, error), files reach) (job.Spec, error) {
	text, f := clean(raw)
	if f != nil {
		return job.Spec{}, report(name, text, []yamltree.Fault{*f})
	}
	root, faults := read(text)
	d := &decoder{file: name, open: open, reach: files, faults: faults, left: maxValues, keys: map[string]taskKey{}}
	for _, k := range taskKeys() {
		d.keys[k.name] = k
	}
	var spec job.Spec
	switch {
	case root == nil && len(faults) == 0:
		d.bad(yamltree.Place{Line: 1, Column: 1}, "begin with the lines job: NAME and tasks:", "the file describes no job")
	case root == nil:
	case root.Kind != yamltree.Mapping:
		d.bad(root.At, "begin with the lines job: NAME and tasks:", "a job file is a mapping, but this is %s", root.Kind)
	default:
		spec = d.job(root)
	}
	if err := report(name, text, d.faults); err != nil {
		return job.Spec{}, err
	}
	return spec, nil
}
