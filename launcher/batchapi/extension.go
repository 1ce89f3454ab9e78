package batchapi

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"time"

	"gangway/launcher/job"
	"gangway/nodeagent/wire/sweep"
)

// extension is the object "gangway" of a task: what Batch has no words for. A
// field that is nil was not given. The environment setting of a field is its
// name in capitals after GANGWAY_: GANGWAY_RANKS_PER_NODE is ranksPerNode.
type extension struct {
	// Sweep is what varies between elements, as package sweep has it: its values
	// replace placeholders in the command line, the environment, workdir and, by
	// their names in job files, in the fields of Vary.
	Sweep *sweep.Sweep       `json:"sweep,omitempty"`
	Vary  *map[string]string `json:"vary,omitempty"`

	MPI            *string `json:"mpi,omitempty"`    // auto, mpich, intel, openmpi, msmpi, none; then the command line is the program of every rank
	Launch         *string `json:"launch,omitempty"` // ranks or primary, if mpi leaves it open
	Ranks          *int    `json:"ranks,omitempty"`
	RanksPerNode   *int    `json:"ranksPerNode,omitempty"`
	CoresPerRank   *int    `json:"coresPerRank,omitempty"`
	GPUsPerRank    *int    `json:"gpusPerRank,omitempty"`
	MemPerRank     *int    `json:"memPerRank,omitempty"` // bytes
	Oversubscribe  *bool   `json:"oversubscribe,omitempty"`
	Via            *string `json:"via,omitempty"`
	Bind           *string `json:"bind,omitempty"`
	Threads        *int    `json:"threads,omitempty"`      // of a rank
	SMT            *int    `json:"smt,omitempty"`          // PUs to use of each core
	Optimize       *string `json:"optimize,omitempty"`     // gpu or cpu, for bind auto
	NoGreedy       *bool   `json:"noGreedy,omitempty"`     // for bind auto
	Distribution   *string `json:"distribution,omitempty"` // block or cyclic
	Preflight      *string `json:"preflight,omitempty"`    // off, fast or full
	Network        *string `json:"network,omitempty"`
	Switches       *int    `json:"switches,omitempty"`     // leaf switches at most
	SwitchesWait   *string `json:"switchesWait,omitempty"` // ISO 8601; then any number will do
	Spread         *string `json:"spread,omitempty"`       // pack or balance, over leaf switches
	Setup          *string `json:"setup,omitempty"`        // a script, sourced on every node
	Bcast          *bool   `json:"bcast,omitempty"`
	WorkDir        *string `json:"workdir,omitempty"`
	KillGrace      *string `json:"killGrace,omitempty"`      // ISO 8601
	LaunchDeadline *string `json:"launchDeadline,omitempty"` // ISO 8601
	OnNodeLoss     *string `json:"onNodeLoss,omitempty"`     // requeue, fail, wait
	Array          *int    `json:"array,omitempty"`          // elements, numbered from 1
	Priority       *int    `json:"priority,omitempty"`       // within the job
	DependsOn      *string `json:"dependsOn,omitempty"`      // with commas: tasks, arrays, elements as A[1-10], names as sim-*
	Backoff        *string `json:"backoff,omitempty"`        // ISO 8601: before the first retry
	BackoffMax     *string `json:"backoffMax,omitempty"`     // ISO 8601
	RetryElsewhere *bool   `json:"retryElsewhere,omitempty"` // not on the nodes where it failed
	Signal         *int    `json:"signal,omitempty"`         // Linux's number
	SignalBefore   *string `json:"signalBefore,omitempty"`   // ISO 8601: before maxWallClockTime is over
}

// readExtension reads the object "gangway".
func readExtension(g *props) *extension {
	e := &extension{
		Sweep: g.optSweep("sweep"), Vary: g.optTexts("vary"),
		MPI:    g.optEnum("mpi", "auto", "mpich", "intel", "openmpi", "msmpi", "none"),
		Launch: g.optEnum("launch", string(job.LaunchRanks), string(job.LaunchPrimary)),
		Ranks:  g.optNumber("ranks", job.MaxRanks), RanksPerNode: g.optNumber("ranksPerNode", job.MaxRanks),
		CoresPerRank: g.optNumber("coresPerRank", 1<<16), GPUsPerRank: g.optNumber("gpusPerRank", 1<<10), MemPerRank: g.optNumber("memPerRank", 1<<50),
		Oversubscribe: g.optFlag("oversubscribe"), Bcast: g.optFlag("bcast"),
		Via: g.optEnum("via", "auto", "mpirun", "pmi"), Bind: g.optEnum("bind", "auto", "core", "numa", "socket", "gpu", "none"),
		Threads: g.optNumber("threads", 1<<16), SMT: g.optNumber("smt", 1<<10),
		Optimize: g.optEnum("optimize", "gpu", "cpu"), NoGreedy: g.optFlag("noGreedy"),
		Preflight: g.optEnum("preflight", "off", "fast", "full"),
		Switches:  g.optNumber("switches", 1<<16), SwitchesWait: g.optDuration("switchesWait"),
		Spread:       g.optEnum("spread", string(job.SpreadPack), string(job.SpreadBalance)),
		Distribution: g.optEnum("distribution", string(job.DistributionBlock), string(job.DistributionCyclic)),
		Network:      g.optText("network"), Setup: g.optText("setup"), WorkDir: g.optText("workdir"),
		KillGrace: g.optDuration("killGrace"), LaunchDeadline: g.optDuration("launchDeadline"),
		OnNodeLoss: g.optEnum("onNodeLoss", string(job.NodeLossRequeue), string(job.NodeLossFail), string(job.NodeLossWait)),
		Array:      g.optNumber("array", job.MaxArray),
	}
	orderExtension(g, e)
	g.close()
	return e
}

func opt[T any](v T, ok bool) *T {
	if !ok {
		return nil
	}
	return &v
}

func (p *props) optEnum(name string, allowed ...string) *string { return opt(p.enum(name, allowed...)) }
func (p *props) optText(name string) *string                    { return opt(p.text(name, 128<<10)) }
func (p *props) optFlag(name string) *bool                      { return opt(read[bool](p, name, "true or false")) }
func (p *props) optNumber(name string, hi int) *int             { return opt(p.number(name, 0, hi)) }

func (p *props) optDuration(name string) *string {
	if _, ok := p.raw(name); !ok {
		return nil
	}
	s := formatDuration(p.duration(name))
	return &s
}

// settingName is the environment setting of a field.
func settingName(field string) string {
	var b strings.Builder
	b.WriteString("GANGWAY_")
	for _, r := range field {
		if r >= 'A' && r <= 'Z' {
			b.WriteByte('_')
		}
		b.WriteString(strings.ToUpper(string(r)))
	}
	return b.String()
}

// splitEnvironment takes the GANGWAY_ settings out of an environment; of a name
// that is there twice, the last counts.
func splitEnvironment(settings []nameValue) (env []string, e extension, err error) {
	known := map[string]reflect.Value{}
	names := map[string]string{}
	v := reflect.ValueOf(&e).Elem()
	for i := range v.NumField() {
		field, _, _ := strings.Cut(v.Type().Field(i).Tag.Get("json"), ",")
		known[settingName(field)], names[settingName(field)] = v.Field(i), field
	}
	at := map[string]int{}
	given := map[string][]byte{}
	for _, s := range settings {
		if strings.HasPrefix(s.Name, "GANGWAY_") {
			f, ok := known[s.Name]
			if !ok {
				all := make([]string, 0, len(known))
				for k := range known {
					all = append(all, k)
				}
				slices.Sort(all)
				return nil, e, invalidProperty("environmentSettings", s.Name, "names that begin with GANGWAY_ are settings of gangway: there are "+strings.Join(all, ", "))
			}
			text := s.Value
			if f.Type().Elem().Kind() == reflect.String {
				text = strconv.Quote(s.Value)
				if b, err := encodeJSON(s.Value); err == nil {
					text = string(b)
				}
			}
			given[names[s.Name]] = []byte(text)
			continue
		}
		if i, ok := at[s.Name]; ok {
			env[i] = s.Name + "=" + s.Value
			continue
		}
		at[s.Name] = len(env)
		env = append(env, s.Name+"="+s.Value)
	}
	if len(given) == 0 {
		return env, e, nil
	}
	p := &props{m: map[string]json.RawMessage{}, seen: map[string]bool{}, errs: new([]*fault)}
	for k, b := range given {
		p.m[k] = b
	}
	e = *readExtension(p)
	if err := p.finish(); err != nil {
		f := faultOf(err)
		f.values = append(f.values, detail{"Setting", "one of the GANGWAY_ names in environmentSettings"})
		return nil, e, f
	}
	return env, e, nil
}

// merge returns e with o's fields. A field that both give, differently, is refused.
func (e extension) merge(o extension) (extension, error) {
	into, from := reflect.ValueOf(&e).Elem(), reflect.ValueOf(o)
	for i := range from.NumField() {
		a, b := into.Field(i), from.Field(i)
		if b.IsNil() {
			continue
		}
		if !a.IsNil() && !reflect.DeepEqual(a.Interface(), b.Interface()) {
			field, _, _ := strings.Cut(into.Type().Field(i).Tag.Get("json"), ",")
			return e, invalidProperty("gangway."+field, fmt.Sprint(b.Elem()), fmt.Sprintf("the environment setting %s says %v; give one of them", settingName(field), a.Elem()))
		}
		a.Set(b)
	}
	return e, nil
}

// apply writes the fields that were given into a specification.
func (e extension) apply(s *job.TaskSpec) {
	set(&s.MPI, e.MPI)
	set(&s.Vary, e.Vary)
	if e.Sweep != nil {
		s.Sweep = e.Sweep
	}
	set(&s.Ranks, e.Ranks)
	set(&s.RanksPerNode, e.RanksPerNode)
	set(&s.CoresPerRank, e.CoresPerRank)
	set(&s.GPUsPerRank, e.GPUsPerRank)
	set(&s.Oversubscribe, e.Oversubscribe)
	set(&s.Via, e.Via)
	set(&s.Bind, e.Bind)
	set(&s.Threads, e.Threads)
	set(&s.SMT, e.SMT)
	set(&s.Optimize, e.Optimize)
	set(&s.NoGreedy, e.NoGreedy)
	set(&s.Preflight, e.Preflight)
	set(&s.Network, e.Network)
	set(&s.Switches, e.Switches)
	set(&s.Bcast, e.Bcast)
	set(&s.WorkDir, e.WorkDir)
	if e.Launch != nil {
		s.Launch = job.Launch(*e.Launch)
	}
	if e.Distribution != nil {
		s.Distribution = job.Distribution(*e.Distribution)
	}
	if e.Spread != nil {
		s.Spread = job.Spread(*e.Spread)
	}
	if e.OnNodeLoss != nil {
		s.OnNodeLoss = job.NodeLoss(*e.OnNodeLoss)
	}
	if e.MemPerRank != nil {
		s.MemPerRank = uint64(*e.MemPerRank)
	}
	if e.Array != nil {
		s.Range = job.Range{Lo: 1, Hi: 1 + uint64(*e.Array)}
	}
	if e.Setup != nil {
		coordination := s.Setup
		s.Setup = &job.Setup{Name: "gangway.setup", Script: []byte(*e.Setup + "\n")}
		if coordination != nil {
			s.Setup.Script = append(s.Setup.Script, coordination.Script...)
		}
	}
	setDuration(&s.KillGrace, e.KillGrace)
	setDuration(&s.LaunchDeadline, e.LaunchDeadline)
	setDuration(&s.SwitchesWait, e.SwitchesWait)
	e.order(s)
}

func setDuration(to *time.Duration, from *string) {
	if from != nil {
		*to, _, _ = parseDuration(*from) // formatDuration wrote it
	}
}

func set[T any](to, from *T) {
	if from != nil {
		*to = *from
	}
}

// extensionOf describes a specification that did not come through the API.
func extensionOf(s job.TaskSpec) extension {
	e := extension{
		Ranks: given(s.Ranks), RanksPerNode: given(s.RanksPerNode), CoresPerRank: given(s.CoresPerRank), GPUsPerRank: given(s.GPUsPerRank),
		MemPerRank: given(int(s.MemPerRank)), Oversubscribe: given(s.Oversubscribe), Via: given(s.Via), Bind: given(s.Bind), Network: given(s.Network),
		Threads: given(s.Threads), SMT: given(s.SMT), Optimize: given(s.Optimize), NoGreedy: given(s.NoGreedy),
		Preflight: given(s.Preflight),
		Bcast:     given(s.Bcast), WorkDir: given(s.WorkDir), Switches: given(s.Switches), Spread: given(string(s.Spread)), Distribution: given(string(s.Distribution)), Launch: given(string(s.Launch)), OnNodeLoss: given(string(s.OnNodeLoss)),
	}
	if s.SwitchesWait > 0 {
		e.SwitchesWait = given(formatDuration(s.SwitchesWait))
	}
	if s.Launch == job.LaunchRanks {
		e.MPI = given(s.MPI)
	}
	return e
}

func given[T comparable](v T) *T {
	var zero T
	if v == zero {
		return nil
	}
	return &v
}
