package batchapi

import (
	"bytes"
	"encoding/json"
	"fmt"

	"gangway/nodeagent/wire/sweep"
)

// optSweep reads what varies between an array's elements, as package sweep has it.
func (p *props) optSweep(name string) *sweep.Sweep {
	raw, ok := p.raw(name)
	if !ok {
		return nil
	}
	s := &sweep.Sweep{}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.DisallowUnknownFields()
	if err := d.Decode(s); err != nil {
		p.add(badBody(fmt.Sprintf("The property '%s' can't be read: %s", p.path+name, jsonReason(err))))
		return nil
	}
	if err := s.Check(); err != nil {
		p.add(invalidProperty(p.path+name, shorten(string(raw)), err.Error()))
		return nil
	}
	return s
}

// optTexts reads an object of texts.
func (p *props) optTexts(name string) *map[string]string {
	return opt(read[map[string]string](p, name, "an object of texts"))
}
