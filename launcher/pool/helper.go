package pool

import (
	"context"
	"errors"
	"fmt"
	"path"
	"path/filepath"
	"strings"
)

// helperName is the program that asks NVIDIA's library of the GPUs. The agent looks
// for it beside its own.
const helperName = "gangway-nvml"

// helper is that program, which lies beside the one that nodes are given. Only nodes
// with one of signs get it; without it their GPUs are known by nvidia-smi.
type helper struct {
	binary
	sum   string   // digest
	signs []string // files of NVIDIA's driver
}

// findHelper returns nil if there is none beside the programs.
func findHelper(programs []string) *helper {
	for _, p := range programs {
		b, err := readBinary(filepath.Join(filepath.Dir(p), helperName))
		if err == nil {
			return &helper{binary: b, signs: []string{"/dev/nvidiactl", "/proc/driver/nvidia/version"}}
		}
	}
	return nil
}

// ready is the helper with its digest; nil if there is none that can be read.
func (h *helper) ready() *helper {
	if h == nil {
		return nil
	}
	sum, err := h.digest()
	if err != nil {
		return nil
	}
	again := *h
	again.sum = sum
	return &again
}

// define writes the function that asks for the helper where it is of use.
func (h *helper) define(b *strings.Builder) {
	if h == nil {
		b.WriteString("lacks() { :; }\n")
		return
	}
	pattern := "*"
	if h.machines != nil {
		if len(h.machines) == 0 {
			pattern = "''"
		} else {
			var quoted []string
			for _, m := range h.machines {
				quoted = append(quoted, quote(m))
			}
			pattern = strings.Join(quoted, "|")
		}
	}
	var there []string
	for _, s := range h.signs {
		there = append(there, "[ -e "+quote(s)+" ]")
	}
	fmt.Fprintf(b, `helper=%s; hwant=%s
lacks() {
  { %s; } || return 0
  case $arch in %s) :;; *) return 0;; esac
  [ -x "$1/$helper" ] && case "$(sum "$1/$helper")" in "$hwant"*) touch -c "$1/$helper" 2>/dev/null; return 0;; esac
  set -- "$1/.$helper.$suffix.part"
  if { umask 077; : >"$1"; } 2>/dev/null; then say helper "$1"; exit 0; fi
}
`, helperName, h.sum, strings.Join(there, " || "), pattern)
}

// gaveHelper copies the helper to the node if the replies ask for it. It is tried
// once a connection: a node does without.
func (in *installer) gaveHelper(ctx context.Context, replies []reply) bool {
	if len(replies) == 0 || replies[len(replies)-1].word != "helper" || in.script.helper == nil {
		return false
	}
	temp := replies[len(replies)-1].rest
	h := in.script.helper
	err := in.send(ctx, h.binary, temp)
	word := "bad"
	if err == nil {
		var answers []reply
		if _, answers, err = in.ask(ctx, helperScript, path.Dir(temp), temp); err == nil && len(answers) > 0 {
			word = answers[len(answers)-1].word
		}
		if err == nil && word != "end" {
			err = errors.New("what arrived differs from what was sent")
		}
	} else {
		_, _, _ = in.ask(ctx, discardScript, path.Dir(temp), temp)
	}
	if err != nil && ctx.Err() == nil {
		in.pool.warn(fmt.Sprintf("%s: %s can't be copied there: %v; its GPUs are asked for by nvidia-smi", in.node, helperName, err))
	}
	in.script.helper = nil
	return true
}
