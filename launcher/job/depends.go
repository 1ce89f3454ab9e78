package job

import (
	"fmt"
	"iter"
	"path"
	"slices"
	"strconv"
	"strings"
)

// Limits of dependencies: what a plan has to keep for each of them adds up.
const (
	MaxDependencies = 100_000    // of one task, patterns replaced
	maxLinks        = 4_000_000  // of all tasks that are submitted together
	maxMatches      = 20_000_000 // ids held against patterns, for the same
)

// Dependency is something that a task waits for: another task of the job, with all
// its elements or some of them.
type Dependency struct {
	// Task is an id; with "*" in it, until Link, every task of the job whose id it
	// fits. "A_3" is element 3 of an array A, if no task has that id.
	Task  string `json:"task"`
	Range Range  `json:"range,omitzero"` // elements, by index; zero: all
}

// String writes a dependency as job files have it.
func (d Dependency) String() string {
	if d.Range == (Range{}) {
		return d.Task
	}
	return d.Task + "[" + d.Range.String() + "]"
}

// ParseDependency reads a task's id or pattern, with or without elements: "A",
// "A[3]", "A[1-10]", "sim-*".
func ParseDependency(s string) (Dependency, error) {
	id, rest, some := strings.Cut(s, "[")
	d := Dependency{Task: id}
	if !goodPattern(id) || some && strings.Contains(id, "*") {
		return d, fmt.Errorf("%q is not a task: write its id, an id with * for several, or elements of an array as in A[3] and A[1-10]", s)
	}
	if !some {
		return d, nil
	}
	first, last, several := strings.Cut(strings.TrimSuffix(rest, "]"), "-")
	if !several {
		last = first
	}
	lo, err := strconv.ParseUint(first, 10, 32)
	hi, err2 := strconv.ParseUint(last, 10, 32)
	if err != nil || err2 != nil || hi < lo || !strings.HasSuffix(rest, "]") {
		return d, fmt.Errorf("%q are not elements of an array: write A[3], or A[1-10] with the last included", s)
	}
	d.Range = Range{lo, hi + 1}
	return d, nil
}

func goodPattern(s string) bool {
	if s == "" || len(s) > MaxID {
		return false
	}
	for i := range len(s) {
		b := s[i]
		if !(b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' || b == '-' || b == '*') {
			return false
		}
	}
	return true
}

// dependencies checks a task's dependencies in themselves.
func (c *checker) dependencies(t TaskSpec) {
	if len(t.DependsOn) > MaxDependencies {
		c.bad("depends-on", "has %d tasks: at most %d are allowed; use an array, whose elements count as one", len(t.DependsOn), MaxDependencies)
		return
	}
	for i, d := range t.DependsOn {
		field := fmt.Sprintf("depends-on[%d]", i)
		switch {
		case !goodPattern(d.Task):
			c.bad(field, "%q is not a task's id: allowed are 1 to %d characters of A-Z a-z 0-9 _ -, and * for any", d.Task, MaxID)
		case d.Range != Range{} && (d.Range.Len() == 0 || strings.Contains(d.Task, "*")):
			c.bad(field, "%q are not elements of an array: write A[3] or A[1-10]", d.Task)
		}
	}
}

// Existing are the tasks that a job has already; the zero value: none.
type Existing struct {
	Find func(id string) (name string, elements Range, ok bool) // whatever its case
	All  iter.Seq[string]                                       // ids, in the order of submission
}

// Link returns the tasks with their dependencies on tasks that are there, among
// them or in the job: patterns are replaced, ids are as their tasks have them. The
// error is of type Problems: unknown tasks, elements that an array does not have,
// cycles. With later, tasks that are unknown stay as they are: they may come.
func Link(tasks []TaskSpec, have Existing, later bool) ([]TaskSpec, error) {
	out, problems := linked(tasks, have, later)
	if len(problems) > 0 {
		return nil, problems
	}
	return out, nil
}

func linked(tasks []TaskSpec, have Existing, later bool) ([]TaskSpec, Problems) {
	if !slices.ContainsFunc(tasks, func(t TaskSpec) bool { return len(t.DependsOn) > 0 }) {
		return tasks, nil
	}
	l := linker{tasks: slices.Clone(tasks), have: have, later: later, index: make(map[string]int, len(tasks)), left: maxLinks, tries: maxMatches}
	for i := range tasks {
		l.index[strings.ToLower(tasks[i].ID)] = i
	}
	for i := range l.tasks {
		if len(tasks[i].DependsOn) > 0 && !l.spent {
			l.prefix = fmt.Sprintf("tasks[%d].", i)
			l.task(i)
		}
	}
	if len(l.problems) == 0 {
		l.cycles()
	}
	return l.tasks, l.problems
}

type linker struct {
	checker
	tasks []TaskSpec
	index map[string]int // by id in lower case
	have  Existing
	later bool
	left  int // links that are still allowed
	tries int // ids that may still be held against patterns
	spent bool
}

// find returns the id, as it is written, and the elements of a task.
func (l *linker) find(id string) (string, Range, bool) {
	if i, ok := l.index[strings.ToLower(id)]; ok {
		r := l.tasks[i].Range
		if r == (Range{}) {
			r = Range{0, 1}
		}
		return l.tasks[i].ID, r, true
	}
	if l.have.Find != nil {
		return l.have.Find(id)
	}
	return "", Range{}, false
}

// Element splits the id of an array's element, "A_3".
func Element(id string) (array string, index uint64, ok bool) {
	i := strings.LastIndexByte(id, '_')
	if i < 1 || i+1 == len(id) || id[i+1] == '0' && i+2 < len(id) || id[i+1] == '+' {
		return "", 0, false
	}
	n, err := strconv.ParseUint(id[i+1:], 10, 32)
	return id[:i], n, err == nil
}

func (l *linker) task(i int) {
	own := l.tasks[i].ID
	var out []Dependency
	for k, d := range l.tasks[i].DependsOn {
		field := fmt.Sprintf("depends-on[%d]", k)
		if strings.Contains(d.Task, "*") {
			if l.tries < 0 {
				l.spent = true
				l.bad(field, "%q is too much: there are too many patterns and tasks: name tasks, or use arrays", d.Task)
				return
			}
			n := len(out)
			if out = l.matching(out, own, d.Task); len(out) == n {
				l.bad(field, "%q fits nothing: no other task of the job has such a name", d.Task)
			}
			continue
		}
		some := d.Range != Range{}
		name, all, ok := l.find(d.Task)
		if !ok && d.Range == (Range{}) {
			if array, n, is := Element(d.Task); is {
				if name, all, ok = l.find(array); ok && (all.Len() < 2 || n < all.Lo || n >= all.Hi) {
					if ok = false; all.Len() > 1 {
						l.bad(field, "%q is not there: %s has elements %s", d.Task, name, all)
						continue
					}
				}
				d.Range = Range{n, n + 1}
			}
		}
		switch {
		case !ok && l.later && !some: // "A_3" may yet be a task or an element
			name, d.Range = d.Task, Range{}
		case !ok:
			l.bad(field, "%q is not there: the job has no such task", d.Task)
			continue
		case strings.EqualFold(name, own):
			l.bad(field, "%q is the task itself: a task can't depend on itself", d.String())
			continue
		case d.Range == Range{}:
		case all.Len() < 2:
			l.bad(field, "%q is not there: %s is no array, leave the elements out", d.String(), name)
			continue
		case !all.Contains(d.Range):
			l.bad(field, "%q is not there: %s has elements %s", d.String(), name, all)
			continue
		case d.Range == all:
			d.Range = Range{}
		}
		d.Task = name
		out = append(out, d)
	}
	out = distinct(out)
	if len(out) > MaxDependencies {
		l.bad("depends-on", "comes to %d tasks: at most %d are allowed; use an array, whose elements count as one", len(out), MaxDependencies)
	} else if l.left -= len(out); l.left < 0 {
		l.spent = true
		l.bad("depends-on", "brings the dependencies of all tasks to more than %d: use arrays, whose elements count as one", maxLinks)
	}
	l.tasks[i].DependsOn = out
}

// matching appends the tasks that a pattern fits, without the one that has it.
func (l *linker) matching(out []Dependency, own, pattern string) []Dependency {
	low := strings.ToLower(pattern)
	start, _, _ := strings.Cut(low, "*")
	add := func(id string) {
		l.tries--
		if len(id) < len(start) || !strings.EqualFold(id[:len(start)], start) {
			return
		}
		if ok, _ := path.Match(low, strings.ToLower(id)); ok && !strings.EqualFold(id, own) { // of * alone, which ids can't contain
			out = append(out, Dependency{Task: id})
		}
	}
	if l.have.All != nil {
		for id := range l.have.All {
			add(id)
		}
	}
	for i := range l.tasks {
		add(l.tasks[i].ID)
	}
	return out
}

// distinct drops what is there twice, and keeps the order.
func distinct(all []Dependency) []Dependency {
	seen := make(map[Dependency]bool, len(all))
	return slices.DeleteFunc(all, func(d Dependency) bool {
		twice := seen[d]
		seen[d] = true
		return twice
	})
}

// cycles finds a task that waits for itself through others.
func (l *linker) cycles() {
	const busy, done = 1, 2
	mark := make([]byte, len(l.tasks))
	type step struct{ task, next int }
	for start := range l.tasks {
		if mark[start] != 0 {
			continue
		}
		mark[start] = busy
		stack := []step{{task: start}}
		for len(stack) > 0 {
			s := &stack[len(stack)-1]
			deps := l.tasks[s.task].DependsOn
			if s.next == len(deps) {
				mark[s.task] = done
				stack = stack[:len(stack)-1]
				continue
			}
			i, ok := l.index[strings.ToLower(deps[s.next].Task)]
			s.next++
			switch {
			case !ok || mark[i] == done:
			case mark[i] == 0:
				mark[i] = busy
				stack = append(stack, step{task: i})
			default:
				var ring []int
				for k := len(stack) - 1; k >= 0 && stack[k].task != i; k-- {
					ring = append(ring, stack[k].task)
				}
				ring = append(ring, i)
				slices.Reverse(ring)
				l.cycle(ring)
				return
			}
		}
	}
}

// maxCycle is how many tasks of a cycle are named.
const maxCycle = 8

// cycle tells of tasks each of which needs the next, and the last the first.
func (l *linker) cycle(ring []int) {
	first := slices.Index(ring, slices.Min(ring))
	ring = slices.Concat(ring[first:], ring[:first]) // it begins with the one that comes first
	names := []string{}
	for k, i := range ring {
		if k == maxCycle {
			names = append(names, fmt.Sprintf("%d more", len(ring)-k))
			break
		}
		names = append(names, l.tasks[i].ID)
	}
	names = append(names, l.tasks[ring[0]].ID)
	l.prefix = fmt.Sprintf("tasks[%d].", ring[0])
	l.bad("depends-on", "a cycle of tasks that wait for each other: %s", strings.Join(names, " needs "))
}
