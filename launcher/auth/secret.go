package auth

import (
	"crypto/rand"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"
)

const redacted = "[redacted]"

// Secret is a text that prints, logs and encodes as "[redacted]". The zero Secret
// is empty.
type Secret struct {
	// A pointer, because fmt does not ask the methods of what is in an unexported
	// field of a struct: of such a pointer it prints the address.
	text *string
}

// NewSecret returns text as a secret.
func NewSecret(text string) Secret { return Secret{&text} }

// ReadSecret returns the first line of a file that only its owner can read, for
// secrets that must not stand on a command line, where every user sees them; of
// stdin if path is "-". Spaces around it are dropped.
func ReadSecret(path string, stdin io.Reader) (Secret, error) {
	var data []byte
	var err error
	if path == "-" {
		data, err = io.ReadAll(io.LimitReader(stdin, 1<<16))
	} else {
		data, _, err = readPrivate(path)
	}
	if err != nil {
		return Secret{}, err
	}
	line, _, _ := strings.Cut(strings.TrimSpace(string(data)), "\n")
	if line = strings.TrimSpace(line); line == "" {
		return Secret{}, fmt.Errorf("%s has no secret in it", map[bool]string{true: "standard input", false: path}[path == "-"])
	}
	return NewSecret(line), nil
}

// Reveal returns the text.
func (s Secret) Reveal() string {
	if s.text == nil {
		return ""
	}
	return *s.text
}

// Empty tells whether there is no text.
func (s Secret) Empty() bool { return s.Reveal() == "" }

// String returns "[redacted]".
func (Secret) String() string { return redacted }

// Format prints "[redacted]", whatever the verb.
func (Secret) Format(st fmt.State, _ rune) { _, _ = io.WriteString(st, redacted) }

// LogValue returns "[redacted]".
func (Secret) LogValue() slog.Value { return slog.StringValue(redacted) }

// MarshalText returns "[redacted]": what must be written reveals it.
func (Secret) MarshalText() ([]byte, error) { return []byte(redacted), nil }

// random returns n bytes from the system's generator, which does not fail.
func random(n int) []byte {
	b := make([]byte, n)
	_, _ = rand.Read(b)
	return b
}

// hostname is for the names in certificates; "localhost" if there is none.
func hostname() string {
	if h, err := os.Hostname(); err == nil && h != "" {
		return h
	}
	return "localhost"
}
