package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"gangway/launcher/client"
	"gangway/launcher/job"
)

// dry shows what the job would be: the launcher's count if one answers.
func (a *app) dry(cmd *cobra.Command, f *submitFlags, spec job.Spec) error {
	p := job.PreviewOf(spec)
	asked := true
	err := f.launcher.asks(func(ctx context.Context, c *client.Client, _ []string) error {
		answer, err := c.Preview(ctx, spec)
		if err == nil {
			p = answer
		}
		return err
	})(cmd, nil)
	var away *client.Unreachable
	if errors.As(err, &away) {
		asked, err = false, nil
	}
	if err != nil {
		return err
	}
	if a.json {
		err = a.encode(p)
	} else {
		err = writePreview(a.stdout, p, asked)
	}
	if err == nil && len(p.Refused) > 0 {
		err = &userError{msg: fmt.Sprintf("the job would be refused: %s", p.Refused[0].Reason), hint: "nothing was submitted", code: exitUsage}
	}
	return err
}

func writePreview(w io.Writer, p job.Preview, asked bool) error {
	var b strings.Builder
	for _, t := range p.Tasks {
		fmt.Fprintf(&b, "%s: %s, %s", t.ID, plural(t.Elements, "element"), plural(t.Cores, "core"))
		if t.Alone && t.Elements > 1 {
			b.WriteString(", each placed by itself")
		}
		b.WriteString("\n")
		for _, e := range t.First {
			writeElement(&b, e)
		}
		if t.Last != nil {
			if t.Elements > uint64(len(t.First))+1 {
				b.WriteString("  ...\n")
			}
			writeElement(&b, *t.Last)
		}
	}
	fmt.Fprintf(&b, "together: %s in %s, %s if all ran at once\n", plural(p.Elements, "element"), plural(uint64(len(p.Tasks)), "task"), plural(p.Cores, "core"))
	for _, r := range p.Refused {
		fmt.Fprintf(&b, "refused: %s: %s\n", r.Field, r.Reason)
	}
	if !asked {
		b.WriteString("no launcher was asked: none answers, so whether its nodes are enough is not known\n")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func writeElement(b *strings.Builder, e job.ElementPreview) {
	fmt.Fprintf(b, "  %s", e.ID)
	if e.Title != "" {
		fmt.Fprintf(b, " %q", cut(e.Title, 60))
	}
	for _, v := range e.Values {
		if v.Name != "" {
			fmt.Fprintf(b, " %s=%s", v.Name, shownWord(v.Value))
		}
	}
	b.WriteString(":")
	for _, arg := range e.Command {
		b.WriteString(" " + shownWord(arg))
	}
	if e.Ranks > 1 {
		fmt.Fprintf(b, " (%s", plural(uint64(e.Ranks), "rank"))
		if e.Nodes > 0 {
			fmt.Fprintf(b, " on %s", plural(uint64(e.Nodes), "node"))
		}
		b.WriteString(")")
	}
	b.WriteString("\n")
}

// shownWord is a word as it could be typed, shortened.
func shownWord(s string) string {
	s = cut(s, 60)
	if s == "" || strings.ContainsAny(s, " \t\"'\\$`|&;<>()*?") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}

func cut(s string, n int) string {
	if r := []rune(s); len(r) > n {
		return string(r[:n]) + "…"
	}
	return s
}

func plural(n uint64, unit string) string {
	if n == 1 {
		return "1 " + unit
	}
	return fmt.Sprintf("%d %ss", n, unit)
}
