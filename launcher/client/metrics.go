package client

import (
	"bufio"
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
)

// Metric is one sample of what Prometheus scrapes.
type Metric struct {
	Name   string
	Labels map[string]string
	Value  float64
}

// Metrics are a launcher's samples at one moment.
type Metrics []Metric

// Metrics scrapes the launcher.
func (c *Client) Metrics(ctx context.Context) (Metrics, error) {
	resp, err := c.send(ctx, http.MethodGet, ours("metrics"), nil, nil)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	m, err := parseMetrics(resp.Body)
	if err != nil {
		return nil, &Unreachable{c.address, err}
	}
	return m, nil
}

// Value is the sum of the samples with this name.
func (m Metrics) Value(name string) float64 {
	sum := 0.0
	for _, s := range m {
		if s.Name == name {
			sum += s.Value
		}
	}
	return sum
}

// By returns the samples with this name by one of their labels.
func (m Metrics) By(name, label string) map[string]float64 {
	out := map[string]float64{}
	for _, s := range m {
		if s.Name == name {
			out[s.Labels[label]] += s.Value
		}
	}
	return out
}

// Label is a label of the first sample with this name.
func (m Metrics) Label(name, label string) string {
	for _, s := range m {
		if s.Name == name {
			return s.Labels[label]
		}
	}
	return ""
}

// parseMetrics reads Prometheus' text format 0.0.4: name{label="value",…} number.
// Lines that it does not understand are passed over.
func parseMetrics(r io.Reader) (Metrics, error) {
	var out Metrics
	s := bufio.NewScanner(r)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if m, ok := parseMetric(s.Text()); ok {
			out = append(out, m)
		}
	}
	return out, s.Err()
}

func parseMetric(line string) (Metric, bool) {
	line = strings.TrimSpace(line)
	i := strings.IndexAny(line, "{ \t")
	if i <= 0 || line[0] == '#' {
		return Metric{}, false
	}
	m := Metric{Name: line[:i], Labels: map[string]string{}}
	rest := line[i:]
	if rest[0] == '{' {
		rest = rest[1:]
		for !strings.HasPrefix(rest, "}") {
			name, after, ok := strings.Cut(rest, `="`)
			if !ok {
				return Metric{}, false
			}
			value, after, ok := quoted(after)
			if !ok {
				return Metric{}, false
			}
			m.Labels[strings.Trim(name, ", ")] = value
			rest = strings.TrimPrefix(after, ",")
		}
		rest = rest[1:]
	}
	f := strings.Fields(rest)
	if len(f) == 0 {
		return Metric{}, false
	}
	var err error
	m.Value, err = strconv.ParseFloat(f[0], 64)
	return m, err == nil
}

// quoted reads up to the closing quote, and what follows it.
func quoted(s string) (value, after string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '"':
			return b.String(), s[i+1:], true
		case s[i] == '\\' && i+1 < len(s):
			i++
			if s[i] == 'n' {
				b.WriteByte('\n')
				continue
			}
			b.WriteByte(s[i])
		default:
			b.WriteByte(s[i])
		}
	}
	return "", "", false
}
