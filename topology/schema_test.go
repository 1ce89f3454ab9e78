package topology_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"math"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"gangway/docs"
	"gangway/internal/golden"
	"gangway/topology"
	"gangway/topology/probe"
)

var update = flag.Bool("update", false, "write the node's schema and its documentation anew")

const (
	schemaFile = "../docs/node.schema.json"
	schemaText = "../docs/node.md"
	generated  = "<!-- What follows is made from the types by: go test ./topology -run Schema -update -->\n"
)

// TestSchema: the schema and its documentation say what the types say.
func TestSchema(t *testing.T) {
	s := newSchema(t)
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(s.document()); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(schemaText)
	if err != nil {
		t.Fatal(err)
	}
	head, _, _ := bytes.Cut(text, []byte(generated))
	want := append(slices.Clone(head), []byte(generated+"\n"+s.tables()+example(t))...)
	for _, f := range []struct {
		name string
		want []byte
	}{{schemaFile, b.Bytes()}, {schemaText, want}} {
		if *update {
			if err := os.WriteFile(f.name, f.want, 0o666); err != nil {
				t.Fatal(err)
			}
			continue
		}
		got, err := os.ReadFile(f.name)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, f.want) {
			t.Errorf("%s is not what the types say: go test ./topology -run Schema -update", f.name)
		}
	}
	if !*update && !bytes.Equal(docs.NodeSchema(), b.Bytes()) {
		t.Error("NodeSchema returns something else")
	}
}

// example is a small machine's JSON.
func example(t *testing.T) string {
	n, err := probe.Synthetic("pack:1 numa:1(memory=64GB) l3:1(size=32MB) core:2 pu:2")
	if err != nil {
		t.Fatal(err)
	}
	n.Hostname = "n1"
	b, err := json.MarshalIndent(n, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	return "## Example\n\nA machine of two cores, as `gangway probe --json` prints it:\n\n```json\n" + string(b) + "\n```\n"
}

// TestGoldenSchema: every recorded machine's JSON is what the schema says, and
// has nothing that it does not name.
func TestGoldenSchema(t *testing.T) {
	if *update {
		t.Skip("the schema is being written")
	}
	var doc map[string]any
	if err := json.Unmarshal(docs.NodeSchema(), &doc); err != nil {
		t.Fatal(err)
	}
	seen := 0
	for name, n := range recordedNodes(t) {
		b, err := json.Marshal(n)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range validate(t, doc, b) {
			t.Errorf("%s: %s", name, p)
		}
		seen++
	}
	full := everything()
	b, err := json.Marshal(full)
	if err != nil {
		t.Fatal(err)
	}
	if p := validate(t, doc, b); len(p) > 0 {
		t.Errorf("a node with every field: %q", p)
	}
	for _, bad := range []string{
		`[]`, `{}`, `{"hostname":1,"memory":{}}`, `{"hostname":"a","memory":{"total":-1}}`, `{"hostname":"a","memory":{"total":1.5}}`,
		`{"hostname":"a","memory":{},"online":"0-"}`, `{"hostname":"a","memory":{},"colour":"red"}`,
		`{"hostname":"a","memory":{},"packages":[{"index":0}]}`, `{"hostname":"a","memory":{},"hcas":[{"name":"x","numa":0,"ports":[{"number":1,"counters":{"a":"b"}}]}]}`,
	} {
		if len(validate(t, doc, []byte(bad))) == 0 {
			t.Errorf("%s is found good", bad)
		}
	}
	t.Logf("%d machines", seen)
}

// recordedNodes reads every recorded machine there is.
func recordedNodes(t *testing.T) map[string]topology.Node {
	out := map[string]topology.Node{}
	for sub, patterns := range map[string][]string{"hwloc-xml": {"*.xml"}, "sysfs": {"*.tar*", "*.ttar"}} {
		dir := golden.Dir(t, sub)
		for _, p := range patterns {
			list, err := filepath.Glob(filepath.Join(dir, p))
			if err != nil {
				t.Fatal(err)
			}
			for _, name := range list {
				n, err := probe.From(name)
				if err != nil {
					t.Logf("%s is no machine: %v", name, err)
					continue
				}
				out[filepath.Base(name)] = n
			}
		}
	}
	return out
}

// everything is a node in which every field of every type is set.
func everything() topology.Node {
	var n topology.Node
	fillValue(reflect.ValueOf(&n).Elem())
	n.MemlockBytes = new(uint64(math.MaxUint64))
	n.Links[0].Class = "NV12"
	return n
}

func fillValue(v reflect.Value) {
	switch v.Interface().(type) {
	case topology.CPUSet:
		v.Set(reflect.ValueOf(topology.NewCPUSet(0, 1, 2, 8)))
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		v.Set(reflect.New(v.Type().Elem()))
		fillValue(v.Elem())
	case reflect.Slice:
		v.Set(reflect.MakeSlice(v.Type(), 1, 1))
		fillValue(v.Index(0))
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		e := reflect.New(v.Type().Elem()).Elem()
		fillValue(e)
		v.SetMapIndex(reflect.ValueOf("port_xmit_data"), e)
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Type().Field(i).IsExported() {
				fillValue(v.Field(i))
			}
		}
	case reflect.String:
		v.SetString("X")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int:
		v.SetInt(1)
	case reflect.Float64:
		v.SetFloat(2.5)
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		v.SetUint(3)
	}
}

// schema makes the node's schema from the types and their comments.
type schema struct {
	t      *testing.T
	types  map[string]string            // comments
	fields map[string]map[string]string // comments, by type and field
	defs   map[string]any
	order  []string
}

func newSchema(t *testing.T) *schema {
	s := &schema{t: t, types: map[string]string{}, fields: map[string]map[string]string{}, defs: map[string]any{}}
	list, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range list {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			g, ok := d.(*ast.GenDecl)
			if !ok || g.Tok != token.TYPE {
				continue
			}
			for _, spec := range g.Specs {
				spec := spec.(*ast.TypeSpec)
				s.types[spec.Name.Name] = sentence(spec.Doc, g.Doc)
				fields := map[string]string{}
				if st, ok := spec.Type.(*ast.StructType); ok {
					for _, f := range st.Fields.List {
						for _, id := range f.Names {
							fields[id.Name] = sentence(f.Doc, f.Comment)
						}
					}
				}
				s.fields[spec.Name.Name] = fields
			}
		}
	}
	return s
}

// sentence is the first comment that says something, on one line.
func sentence(all ...*ast.CommentGroup) string {
	for _, c := range all {
		if text := strings.Join(strings.Fields(c.Text()), " "); text != "" {
			return text
		}
	}
	return ""
}

func (s *schema) document() map[string]any {
	root := s.of(reflect.TypeFor[topology.Node]())
	return map[string]any{
		"$schema": "https://json-schema.org/draft/2020-12/schema",
		"title":   "Gangway's node", "$ref": root["$ref"], "$defs": s.defs,
	}
}

// of is the schema of a type; structures are definitions.
func (s *schema) of(t reflect.Type) map[string]any {
	switch {
	case t == reflect.TypeFor[topology.CPUSet]():
		if s.defs["CPUSet"] == nil {
			s.order = append(s.order, "CPUSet")
			s.defs["CPUSet"] = map[string]any{"type": "string", "pattern": `^([0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*)?$`,
				"description": "Indices of PUs or NUMA nodes by the operating system's numbers, in the kernel's list format: 0-3,8. Without the property, or empty: none, or unknown."}
		}
		return map[string]any{"$ref": "#/$defs/CPUSet"}
	case t.String() == "netip.Prefix":
		return map[string]any{"type": "string"}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return s.of(t.Elem())
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.String:
		return map[string]any{"type": "string"}
	case reflect.Int:
		return map[string]any{"type": "integer"}
	case reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return map[string]any{"type": "integer", "minimum": 0}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": s.of(t.Elem())}
	case reflect.Map:
		return map[string]any{"type": "object", "additionalProperties": s.of(t.Elem())}
	case reflect.Struct:
		s.define(t)
		return map[string]any{"$ref": "#/$defs/" + t.Name()}
	}
	s.t.Fatalf("the schema has no words for %s", t)
	return nil
}

func (s *schema) define(t reflect.Type) {
	if s.defs[t.Name()] != nil {
		return
	}
	s.order = append(s.order, t.Name())
	properties := map[string]any{}
	d := map[string]any{"type": "object", "description": s.types[t.Name()], "properties": properties}
	s.defs[t.Name()] = d
	var required []string
	for i := range t.NumField() {
		f := t.Field(i)
		name, opts, _ := strings.Cut(f.Tag.Get("json"), ",")
		p := s.of(f.Type)
		// Beside $ref a description is allowed since 2019-09.
		if text := s.fields[t.Name()][f.Name]; text != "" {
			p["description"] = text
		} else if f.Type.Name() == "Class" {
			p["description"] = s.types["Class"]
		}
		properties[name] = p
		if opts == "" {
			required = append(required, name)
		}
	}
	if required != nil {
		d["required"] = required
	}
}

// tables are the definitions for readers.
func (s *schema) tables() string {
	var b strings.Builder
	for _, name := range s.order {
		d := s.defs[name].(map[string]any)
		fmt.Fprintf(&b, "## %s\n\n%s\n\n", name, d["description"])
		properties, ok := d["properties"].(map[string]any)
		if !ok {
			continue
		}
		required, _ := d["required"].([]string)
		b.WriteString("| property | type | |\n|---|---|---|\n")
		for _, p := range slices.Sorted(maps.Keys(properties)) {
			v := properties[p].(map[string]any)
			text, _ := v["description"].(string)
			mark := ""
			if slices.Contains(required, p) {
				mark = " (always)"
			}
			fmt.Fprintf(&b, "| `%s` | %s%s | %s |\n", p, typeWords(v), mark, strings.ReplaceAll(text, "|", `\|`))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func typeWords(v map[string]any) string {
	if ref, ok := v["$ref"].(string); ok {
		name := strings.TrimPrefix(ref, "#/$defs/")
		return "[" + name + "](#" + strings.ToLower(name) + ")"
	}
	if items, ok := v["items"].(map[string]any); ok {
		return "list of " + typeWords(items)
	}
	if values, ok := v["additionalProperties"].(map[string]any); ok {
		return "object of " + typeWords(values)
	}
	return v["type"].(string)
}

// validate checks JSON against the parts of JSON Schema that the schema uses,
// and that every property is one that it names.
func validate(t *testing.T, doc map[string]any, text []byte) []string {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		t.Fatal(err)
	}
	var out []string
	var check func(at string, s map[string]any, v any)
	check = func(at string, s map[string]any, v any) {
		bad := func(format string, args ...any) {
			out = append(out, at+": "+fmt.Sprintf(format, args...))
		}
		if ref, ok := s["$ref"].(string); ok {
			s = doc["$defs"].(map[string]any)[strings.TrimPrefix(ref, "#/$defs/")].(map[string]any)
		}
		switch s["type"] {
		case "object":
			o, ok := v.(map[string]any)
			if !ok {
				bad("no object")
				return
			}
			required, _ := s["required"].([]any)
			for _, r := range required {
				if _, ok := o[r.(string)]; !ok {
					bad("%s is missing", r)
				}
			}
			properties, _ := s["properties"].(map[string]any)
			rest, _ := s["additionalProperties"].(map[string]any)
			for k, x := range o {
				p, ok := properties[k].(map[string]any)
				if !ok {
					p = rest
				}
				if p == nil {
					bad("%s is unknown", k)
					continue
				}
				check(at+"."+k, p, x)
			}
		case "array":
			list, ok := v.([]any)
			if !ok {
				bad("no array")
			}
			for i, x := range list {
				check(fmt.Sprintf("%s[%d]", at, i), s["items"].(map[string]any), x)
			}
		case "string":
			text, ok := v.(string)
			if !ok {
				bad("no string")
				return
			}
			if p, ok := s["pattern"].(string); ok && !regexp.MustCompile(p).MatchString(text) {
				bad("%q does not match %s", text, p)
			}
		case "boolean":
			if _, ok := v.(bool); !ok {
				bad("no boolean")
			}
		case "integer", "number":
			n, ok := v.(json.Number)
			if !ok {
				bad("no number")
				return
			}
			if s["type"] == "integer" && strings.ContainsAny(n.String(), ".eE") {
				bad("%s is no integer", n)
			}
			if s["minimum"] != nil && strings.HasPrefix(n.String(), "-") {
				bad("%s is below 0", n)
			}
		default:
			bad("the schema has no type")
		}
	}
	check("node", doc, v)
	return out
}
