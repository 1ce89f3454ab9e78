package jobfile

// Refused returns the *Errors of a job file that can be read but that a launcher does
// not take: message and hint are about the task of that index, from 0. The error
// names the file's first line if it has no such task.
func Refused(name string, raw []byte, task int, message, hint string) error {
	text, f := clean(raw)
	if f != nil {
		return report(name, text, []fault{*f})
	}
	at := place{1, 1}
	if root, _ := read(text); root != nil && root.kind == mapping {
		for _, p := range root.pairs {
			if p.key == "tasks" && p.value.kind == sequence && task >= 0 && task < len(p.value.items) {
				at = p.value.items[task].at
			}
		}
	}
	return report(name, text, []fault{{at, message, hint}})
}
