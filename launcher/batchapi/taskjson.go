package batchapi

import (
	"net/url"
	"strconv"
	"time"

	"gangway/launcher/job"
)

// taskWriter writes the tasks of a list: byte for byte what encodeJSON makes of
// renderTask, in a tenth of the time. Pages have a thousand of them.
type taskWriter struct {
	c     *call
	tasks string            // address of the job's tasks, with a final slash
	nodes map[string]string // by id, their address
}

func (c *call) taskWriter(jobID string) *taskWriter {
	return &taskWriter{c: c, tasks: c.link("jobs", jobID, "tasks") + "/", nodes: map[string]string{}}
}

func (w *taskWriter) write(b []byte, t *Task) []byte {
	body := bodyOf(t.Spec)
	b = appendString(append(b, `{"id":`...), t.ID)
	b = appendText(b, `,"displayName":`, body.DisplayName)
	b = appendString(append(b, `,"url":`...), w.tasks+url.PathEscape(t.ID))
	b = appendTag(append(b, `,"eTag":`...), t.Version)
	b = appendTime(b, `,"lastModified":`, t.Times.Modified)
	b = appendTime(b, `,"creationTime":`, t.Times.Created)
	b = appendString(append(b, `,"state":`...), string(t.State))
	b = appendTime(b, `,"stateTransitionTime":`, t.Times.StateAt)
	b = appendText(b, `,"previousState":`, t.Times.Prev)
	b = appendTime(b, `,"previousStateTransitionTime":`, t.Times.PrevAt)
	b = appendString(append(b, `,"commandLine":`...), body.CommandLine)
	if len(body.Environment) > 0 {
		b = appendAny(b, `,"environmentSettings":`, body.Environment)
	}
	if body.Affinity != nil {
		b = appendAny(b, `,"affinityInfo":`, body.Affinity)
	}
	if k := body.Constraints; k != nil {
		b = appendString(append(b, `,"constraints":{"maxWallClockTime":`...), k.MaxWallClockTime)
		b = appendString(append(b, `,"retentionTime":`...), k.RetentionTime)
		b = appendInt(b, `,"maxTaskRetryCount":`, k.MaxTaskRetry)
		b = append(b, '}')
	}
	b = appendInt(b, `,"requiredSlots":`, body.RequiredSlots)
	if body.User != nil {
		b = appendAny(b, `,"userIdentity":`, body.User)
	}
	if body.MultiInstance != nil {
		b = appendAny(b, `,"multiInstanceSettings":`, body.MultiInstance)
	}
	if body.DependsOn != nil {
		b = appendAny(b, `,"dependsOn":`, body.DependsOn)
	}
	if body.Exit != nil {
		b = appendAny(b, `,"exitConditions":`, body.Exit)
	}
	b = w.execution(append(b, `,"executionInfo":`...), t)
	if t.Run.Node != "" {
		b = w.node(append(b, `,"nodeInfo":`...), t.Run)
	}
	if body.Gangway != nil {
		b = appendAny(b, `,"gangway":`, body.Gangway)
	}
	return append(b, '}')
}

func (w *taskWriter) execution(b []byte, t *Task) []byte {
	r := &t.Run
	b = append(b, '{')
	start := len(b)
	b = appendTime(b, `,"startTime":`, r.Started)
	if t.State == job.TaskCompleted {
		b = appendTime(b, `,"endTime":`, r.Ended)
		if r.Exit != nil {
			b = appendInt(b, `,"exitCode":`, *r.Exit)
		}
		if r.Success {
			b = append(b, `,"result":"success"`...)
		} else {
			b = appendAny(b, `,"failureInfo":`, failureOf(*r))
			b = append(b, `,"result":"failure"`...)
		}
	}
	b = appendInt(b, `,"retryCount":`, t.Retries)
	b = append(b[:start], b[start+1:]...) // the first comma
	b = appendTime(b, `,"lastRetryTime":`, t.RetriedAt)
	b = appendInt(b, `,"requeueCount":`, t.Requeues)
	b = appendTime(b, `,"lastRequeueTime":`, t.RequeueAt)
	return append(b, '}')
}

func (w *taskWriter) node(b []byte, r Run) []byte {
	address, ok := w.nodes[r.Node]
	if !ok {
		address = w.c.link("pools", r.Pool, "nodes", r.Node)
		w.nodes[r.Node] = address
	}
	b = appendString(append(b, `{"affinityId":`...), r.Node)
	b = appendString(append(b, `,"nodeUrl":`...), address)
	b = appendString(append(b, `,"poolId":`...), r.Pool)
	b = appendString(append(b, `,"nodeId":`...), r.Node)
	if r.Folder != "" {
		b = appendString(append(b, `,"taskRootDirectory":`...), r.Folder)
		b = appendString(append(b, `,"taskRootDirectoryUrl":`...), address+"/files/"+escapePath(r.Folder))
	}
	return append(b, '}')
}

// appendString appends s as encodeJSON writes it.
func appendString(b []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c >= 0x7f || c == '"' || c == '\\' {
			return appendAny(b, "", s)
		}
	}
	b = append(b, '"')
	b = append(b, s...)
	return append(b, '"')
}

// appendText appends a property that is left out when it is empty.
func appendText(b []byte, name, s string) []byte {
	if s == "" {
		return b
	}
	return appendString(append(b, name...), s)
}

func appendTime(b []byte, name string, t time.Time) []byte {
	if t.IsZero() {
		return b
	}
	b = append(append(b, name...), '"')
	return append(t.UTC().AppendFormat(b, stamp), '"')
}

func appendInt(b []byte, name string, n int) []byte {
	return strconv.AppendInt(append(b, name...), int64(n), 10)
}

func appendTag(b []byte, v Version) []byte {
	b = append(b, `"\"0x`...)
	at := len(b)
	b = strconv.AppendUint(b, uint64(v), 16)
	for i := at; i < len(b); i++ {
		if b[i] >= 'a' {
			b[i] -= 'a' - 'A'
		}
	}
	return append(b, `\""`...)
}

// appendAny appends what is rare. Only values of this package's own types are
// given to it, which can't fail.
func appendAny(b []byte, name string, v any) []byte {
	b = append(b, name...)
	x, err := encodeJSON(v)
	if err != nil {
		return append(b, "null"...)
	}
	return append(b, x...)
}
