package gpu

import (
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"gangway/topology"
)

// Bounds of what is read of one document: real ones have some 400 values a GPU.
const (
	xmlDepth  = 16
	xmlValues = 8192
)

// ReadXML reads `nvidia-smi -q -x`. Of a document that ends early it gives the GPUs
// that were told to the end, and a warning; without any it fails. Numbers are
// the order in the document, which is NVML's; UUIDs of MIG instances are not in it (see ReadList).
func ReadXML(b []byte) (Result, error) {
	text := clean(b)
	r := Result{Source: "nvidia-smi"}
	noteLost(text, &r)
	i := strings.Index(text, "<nvidia_smi_log")
	if i < 0 {
		return r, fmt.Errorf("no <nvidia_smi_log> in its %d bytes of output%s", len(b), firstLine(text))
	}
	dec := xml.NewDecoder(strings.NewReader(text[i:]))
	dec.Strict = false
	driver, next := "", 0
	for {
		tok, err := dec.Token()
		if err == io.EOF {
			break
		}
		if err != nil {
			r.Warnings = append(r.Warnings, "nvidia-smi -q -x: "+brokenXML(err))
			break
		}
		start, ok := tok.(xml.StartElement)
		if !ok {
			continue
		}
		switch start.Name.Local {
		case "driver_version":
			v, err := xmlText(dec)
			if err == nil && !unsaid(v) {
				driver = clip(v, 64)
			}
		case "gpu":
			if next == maxGPUs {
				return r, fmt.Errorf("it lists more than %d GPUs", maxGPUs)
			}
			e := element{index: next, values: map[string]string{}}
			next++
			for _, a := range start.Attr {
				if a.Name.Local == "id" {
					e.values["id"] = a.Value
				}
			}
			err := e.read(dec)
			g, keep := e.gpu(&r, driver)
			if err != nil {
				// What is there may be the half that says nothing bad.
				r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi -q -x: GPU %d %s: %s; it is left out", e.index, g.PCI, brokenXML(err)))
				return r.finish()
			}
			if keep {
				r.GPUs = append(r.GPUs, g)
			}
		}
	}
	return r.finish()
}

func (r Result) finish() (Result, error) {
	if len(r.GPUs) == 0 && len(r.Warnings) > 0 {
		return r, errors.New(r.Warnings[len(r.Warnings)-1])
	}
	return r, nil
}

func brokenXML(err error) string {
	var se *xml.SyntaxError
	if errors.As(err, &se) {
		return fmt.Sprintf("line %d: %s", se.Line, se.Msg)
	}
	return err.Error()
}

func firstLine(text string) string {
	line, _, _ := strings.Cut(strings.TrimSpace(text), "\n")
	if line == "" {
		return ""
	}
	return ": " + clip(line, 200)
}

// xmlText is the text of an element whose start was read.
func xmlText(dec *xml.Decoder) (string, error) {
	var out strings.Builder
	for depth := 1; depth > 0; {
		tok, err := dec.Token()
		if err != nil {
			return "", eof(err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			depth++
		case xml.EndElement:
			depth--
		case xml.CharData:
			if out.Len() < 4096 {
				out.Write(t)
			}
		}
	}
	return strings.TrimSpace(out.String()), nil
}

func eof(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// element is a <gpu>: its values by path from there, and its MIG instances'.
type element struct {
	index  int
	values map[string]string
	mig    []map[string]string
}

func (e *element) read(dec *xml.Decoder) error {
	var path []string
	var text strings.Builder
	total := 0
	for {
		tok, err := dec.Token()
		if err != nil {
			return eof(err)
		}
		switch t := tok.(type) {
		case xml.StartElement:
			if len(path) == xmlDepth || total == xmlValues {
				return fmt.Errorf("more than %d values, or deeper than %d elements", xmlValues, xmlDepth)
			}
			total++
			path = append(path, t.Name.Local)
			if t.Name.Local == "mig_device" {
				e.mig = append(e.mig, map[string]string{})
			}
			text.Reset()
		case xml.CharData:
			if text.Len() < 4096 {
				text.Write(t)
			}
		case xml.EndElement:
			if len(path) == 0 {
				return nil
			}
			if v := strings.TrimSpace(text.String()); v != "" {
				e.set(path, v)
			}
			text.Reset()
			path = path[:len(path)-1]
		}
	}
}

func (e *element) set(path []string, v string) {
	into, p := e.values, path
	if i := slices.Index(path, "mig_device"); i >= 0 && len(e.mig) > 0 {
		into, p = e.mig[len(e.mig)-1], path[i+1:]
	}
	if key := strings.Join(p, "/"); into[key] == "" {
		into[key] = v
	}
}

// first is the first of the paths with a value that says something. Drivers
// have renamed elements.
func (e *element) first(paths ...string) (string, bool) {
	for _, p := range paths {
		if v, ok := e.values[p]; ok && !unsaid(v) {
			return v, true
		}
	}
	return "", false
}

// read parses the first value of paths. What can't be read is unknown with a
// warning, what the driver does not say without.
func read[T any](e *element, r *Result, parse func(string) (*T, bool), paths ...string) *T {
	s, ok := e.first(paths...)
	if !ok {
		return nil
	}
	v, ok := parse(s)
	if !ok {
		r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi -q -x: GPU %d: %s is %q, which can't be read", e.index, paths[0], clip(s, 40)))
		return nil
	}
	return v
}

// gpu makes the model of what was read. keep is false for a GPU that is gone.
func (e *element) gpu(r *Result, driver string) (g topology.GPU, keep bool) {
	g = topology.GPU{Index: e.index, Vendor: "nvidia", NUMA: -1, Driver: driver}
	name, _ := e.first("product_name")
	g.UUID, _ = e.first("uuid")
	g.UUID = clip(g.UUID, 96)
	if id, ok := e.first("pci/pci_bus_id", "id"); ok {
		if g.PCI, ok = Address(id); !ok {
			r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi -q -x: GPU %d: its PCI address is %q, which can't be read", e.index, clip(id, 40)))
		}
	}
	for _, v := range []string{name, g.UUID} {
		if lost(v) {
			r.Warnings = append(r.Warnings, LostWarning(e.index, g.PCI, clip(v, 80)))
			return g, false
		}
	}
	if needsReset(name) || needsReset(g.UUID) {
		g.Health.Problem = recoveryProblem(1)
		name, g.UUID = "", ""
	}
	if g.PCI == "" && g.UUID == "" && name == "" {
		r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi -q -x: GPU %d has neither name nor UUID nor PCI address: it is left out", e.index))
		return g, false
	}
	g.Name = clip(name, 96)
	g.Memory = read(e, r, bytesOf, "fb_memory_usage/total")
	if m := read(e, r, switched, "mig_mode/current_mig"); m != nil {
		g.MIGMode = *m
	}
	for _, m := range e.mig {
		i, err := strconv.Atoi(strings.TrimSpace(m["index"]))
		if err != nil || i < 0 || i >= maxGPUs || slices.ContainsFunc(g.MIG, func(x topology.MIG) bool { return x.Index == i }) {
			r.Warnings = append(r.Warnings, fmt.Sprintf("nvidia-smi -q -x: GPU %d: a MIG instance has the number %q, which can't be used", e.index, clip(m["index"], 40)))
			continue
		}
		mem, _ := bytesOf(m["fb_memory_usage/total"])
		uuid := m["uuid"]
		if unsaid(uuid) {
			uuid = ""
		}
		g.MIG = append(g.MIG, topology.MIG{Index: i, UUID: clip(uuid, 96), Memory: mem})
	}
	slices.SortFunc(g.MIG, func(a, b topology.MIG) int { return a.Index - b.Index })
	e.health(&g.Health, r)
	return g, true
}

func (e *element) health(h *topology.Health, r *Result) {
	h.ECC = read(e, r, switched, "ecc_mode/current_ecc")
	h.Corrected = e.sum(r, "ecc_errors/volatile/", [][]string{{"sram_correctable"}, {"dram_correctable"}}, "single_bit/total")
	h.Uncorrected = e.sum(r, "ecc_errors/volatile/", [][]string{
		{"sram_uncorrectable", "sram_uncorrectable_parity"}, {"sram_uncorrectable_secded"}, {"dram_uncorrectable"}}, "double_bit/total")
	h.RemapPending = read(e, r, switched, "remapped_rows/remapped_row_pending", "retired_pages/pending_blacklist", "retired_pages/pending_retirement")
	h.RemapFailed = read(e, r, switched, "remapped_rows/remapped_row_failure")
	h.RetiredPages = e.sum(r, "", [][]string{{"remapped_rows/remapped_row_corr"}, {"remapped_rows/remapped_row_unc"}}, "")
	if h.RetiredPages == nil {
		h.RetiredPages = e.sum(r, "retired_pages/", [][]string{
			{"multiple_single_bit_retirement/retired_count"}, {"double_bit_retirement/retired_count"}}, "")
	}
	for _, reason := range reasons()[1:] {
		for _, kind := range []string{"clocks_event_reason", "clocks_throttle_reason"} {
			if v, ok := e.values[kind+"s/"+kind+"_"+reason]; ok && strings.EqualFold(v, "active") {
				h.Throttle = append(h.Throttle, reason)
				break
			}
		}
	}
	if t := read(e, r, number, "temperature/gpu_temp"); t != nil && *t > -100 && *t < 300 {
		c := int(*t)
		h.TemperatureC = &c
	}
	if w := read(e, r, number, "gpu_power_readings/power_draw", "gpu_power_readings/average_power_draw", "gpu_power_readings/instant_power_draw", "power_readings/power_draw"); w != nil && *w >= 0 && *w < 1e5 {
		mw := uint64(*w*1000 + 0.5)
		h.PowerMilliW = &mw
	}
	action := 0
	if v, ok := e.first("gpu_recovery_action"); ok {
		v = strings.ToLower(v)
		for a, s := range []string{"none", "gpu reset", "reboot", "drain p2p", "drain and reset"} {
			if strings.Contains(v, s) {
				action = a
			}
		}
		if action == 0 && v == "reset" {
			action = 1
		}
	}
	if h.Problem == "" {
		h.Problem = WithRecovery(*h, action)
	}
}

// sum adds counters of which a driver has one name each; older is what older
// drivers have in place of all. nil: none is known.
func (e *element) sum(r *Result, prefix string, parts [][]string, older string) *uint64 {
	var out *uint64
	for _, names := range parts {
		paths := make([]string, len(names))
		for i, n := range names {
			paths[i] = prefix + n
		}
		if v := read(e, r, count, paths...); v != nil {
			if out == nil {
				out = new(uint64)
			}
			if *out+*v >= *out {
				*out += *v
			}
		}
	}
	if out == nil && older != "" {
		out = read(e, r, count, prefix+older)
	}
	return out
}

func number(s string) (*float64, bool) {
	v, _, ok := quantity(s)
	return &v, ok
}
