package pool

import (
	"fmt"
	"path"
	"strings"
)

// The scripts run on a node. They are read by `sh` from its standard input, so
// that no login shell (csh, fish) ever parses them; each is one compound
// command, so that sh has read all of it before it runs any, and what follows on
// the input belongs to the program that it execs. They keep to POSIX and answer
// in lines that begin with a mark, because login shells print greetings:
//
//	run PATH        the program is being executed: the stream is its own now
//	arch SYSTEM     no program was given for this system
//	put TEMP        the program is missing: upload it as TEMP, an existing file
//	full KIB DIR    DIR has only KIB free
//	free KIB        the room in TEMP's directory
//	ready           the upload may be sent on the script's input
//	skip TEXT       why a directory can't be used
//	part NAME       an upload under way, in TEMP's directory
//	helper TEMP     the program is there, its helper for GPUs is not: upload that as
//	                TEMP, an existing file
//	bad             the upload is not what was sent
//	end             nothing else will be said

// prelude defines what the scripts share. Variables set before it: mark.
const prelude = `
say() { printf '\n%s %s\n' "$mark" "$*"; }
uid=$(id -u)
home= ; [ -n "${HOME:-}" ] && home=$HOME/.cache/gangway/bin
spare=/var/tmp/gangway-$uid/bin
sum() {
  if command -v sha256sum >/dev/null 2>&1; then sha256sum <"$1"
  elif command -v shasum >/dev/null 2>&1; then shasum -a 256 <"$1"
  else openssl dgst -sha256 -r <"$1"; fi 2>/dev/null
}
good() {
  [ -f "$1" ] && [ -x "$1" ] || return 1
  case "$(sum "$1")" in "$want"*) return 0;; esac
  return 1
}
trusted() {
  [ "$1" = "$spare" ] || return 0
  set -- $(LC_ALL=C ls -ldn "${1%/bin}" 2>/dev/null)
  case "${1:-}" in d????-??-*) [ "$3" = "$uid" ];; *) return 1;; esac
}
avail() {
  set -- $(LC_ALL=C df -Pk "$1" 2>/dev/null | tail -n 1)
  case "${4:-}" in ''|*[!0-9]*) echo 0 unknown;; *) echo "$4";; esac
}
`

// find runs the program when a directory has it.
const findScript = `
for dir in "$home" "$spare"; do
  [ -n "$dir" ] && trusted "$dir" && good "$dir/$name" && run "$dir/$name"
done
`

// prepare makes ready for an upload: a directory with room where programs may be
// executed (shown by the later upload's own file), and in it a file.
// Files of uploads that were cut off are removed after a day.
// A client that left meanwhile does not hear "put": then the file goes.
const prepareScript = `
trap '' PIPE
for dir in "$home" "$spare"; do
  [ -n "$dir" ] || continue
  passed "$dir" && continue
  if e=$( { umask 077; mkdir -p "$dir"; } 2>&1 ); then :; else say skip "$dir: ${e##*: }"; continue; fi
  if trusted "$dir"; then :; else say skip "$dir: belongs to somebody else, or others may write there"; continue; fi
  free=$(avail "$dir")
  case $free in *unknown) :;; *) if [ "$free" -lt "$need" ]; then say full "$free $dir"; continue; fi;; esac
  find "$dir" -name '.gangway-*.part' -mtime +0 -exec rm -f {} \; 2>/dev/null
  t=$dir/.$name.$suffix.part
  if e=$( { umask 077; printf '#!/bin/sh\nexit 0\n' >"$t" && chmod 700 "$t"; } 2>&1 ); then :
  else rm -f "$t" 2>/dev/null; say skip "$dir: ${e##*: }"; continue; fi
  if "$t" 2>/dev/null; then say put "$t" || rm -f "$t"; exit 0; fi
  rm -f "$t"; say skip "$dir: programs may not be executed there (noexec)"
done
say end
`

// check looks again once the upload is announced: another may have finished.
const checkScript = `
good "$dir/$name" && { rm -f "$t"; run "$dir/$name"; }
for p in "$dir"/.gangway-*.part; do say part "${p##*/}"; done
say end
`

// finish puts an upload in its place and runs it; programs that nobody used for
// 30 days go (every use touches them).
const finishScript = `
if chmod 755 "$t" && good "$t" && mv -f "$t" "$dir/$name"; then
  find "$dir" -type f -name 'gangway-*' ! -name "$name" -mtime +30 -exec rm -f {} \; 2>/dev/null
  run "$dir/$name"
fi
rm -f "$t"
say bad
`

// discard removes a failed upload and says what room there is without it, and
// why no more can be written: SFTP has no word for a full disk, and df none for
// a quota.
const discardScript = `
e=$( { LC_ALL=C dd if=/dev/zero bs=65536 count=16 >>"$t"; } 2>&1 )
case $e in
*"No space left"*) say skip No space left on device;;
*uota*) say skip Disk quota exceeded;;
esac
rm -f "$t"
say free "$(avail "$dir")"
`

// receive takes the upload on its own input, where there is no SFTP. What the
// input holds is sent only after the answer "ready", so that sh can't have read
// ahead.
const receiveScript = `
trap '' PIPE
say ready
if e=$( { cat >"$t"; } 2>&1 ); then say end; else say skip "${e##*: }"; fi || rm -f "$t"
`

// helperScript puts an uploaded helper in its place, beside the program.
const helperScript = `
if chmod 755 "$t" && case "$(sum "$t")" in "$hwant"*) :;; *) false;; esac && mv -f "$t" "$dir/$helper"; then say end
else rm -f "$t"; say bad; fi
`

// cleanScript removes what this attempt may have left.
const cleanScript = `
rm -f "$home"/.gangway-*."$suffix".part "$spare"/.gangway-*."$suffix".part
say end
`

// script writes scripts for one connection attempt.
type script struct {
	mark, suffix string
	args, env    []string
	binaries     []binary
	digests      []string // of binaries
	passed       []string // directories that are not to be used
	helper       *helper  // nil: there is none, or it was tried already
}

// build puts a script together. dir and temp may be empty.
func (s *script) build(body, dir, temp string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "{ mark=%s; suffix=%s; dir=%s; t=%s\n", quote(s.mark), quote(s.suffix), quote(dir), quote(temp))
	b.WriteString(prelude)
	b.WriteString("arch=$(uname -sm)\ncase $arch in\n")
	anywhere := false
	for i, bin := range s.binaries {
		pattern := "*"
		if bin.machines != nil {
			if len(bin.machines) == 0 {
				continue
			}
			var quoted []string
			for _, m := range bin.machines {
				quoted = append(quoted, quote(m))
			}
			pattern = strings.Join(quoted, "|")
		} else {
			anywhere = true
		}
		fmt.Fprintf(&b, "%s) name=%s; want=%s; need=%d;;\n", pattern, quote(remoteName(s.digests[i])), quote(s.digests[i]), needKiB(bin.size))
	}
	if !anywhere {
		b.WriteString("*) say arch \"$arch\"; exit 0;;\n")
	}
	b.WriteString("esac\npassed() { case $1 in ")
	for _, d := range s.passed {
		fmt.Fprintf(&b, "%s) return 0;; ", quote(d))
	}
	b.WriteString("*) return 1;; esac; }\n")
	s.helper.define(&b)
	b.WriteString("run() {\n  touch -c \"$1\" 2>/dev/null\n  lacks \"${1%/*}\"\n  say run \"$1\"\n")
	for _, kv := range s.env {
		name, value, _ := strings.Cut(kv, "=")
		fmt.Fprintf(&b, "  export %s=%s\n", name, quote(value))
	}
	b.WriteString("  exec \"$1\"")
	for _, a := range s.args {
		b.WriteString(" " + quote(a))
	}
	b.WriteString("\n}\n" + body + "}\n")
	return b.String()
}

// needKiB is the room an upload needs, with some for the directory's growth.
func needKiB(size int64) int64 { return (size+1023)/1024 + 64 }

// quote makes one word for a POSIX shell.
func quote(s string) string {
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// shellName reports whether a variable of that name can be set by a shell.
func shellName(s string) bool {
	for i, c := range []byte(s) {
		letter := c == '_' || c|0x20 >= 'a' && c|0x20 <= 'z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}

// pick is the binary for an upload: the one whose name the temporary file has.
func (s *script) pick(temp string) (binary, bool) {
	base := path.Base(temp)
	for i, b := range s.binaries {
		if strings.HasPrefix(base, "."+remoteName(s.digests[i])+".") {
			return b, true
		}
	}
	return binary{}, false
}
