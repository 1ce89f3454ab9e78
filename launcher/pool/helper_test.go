package pool

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/crypto/ssh"
)

func lookPath(name string) (string, error) { return exec.LookPath(name) }

// signal sends one by the program kill, which every system with sshd has.
func signal(pid int, name string) error {
	return exec.Command("kill", "-"+name, itoa(pid)).Run()
}

func itoa(n int) string { return strconv.Itoa(n) }

type randReader struct{}

func (randReader) Read(p []byte) (int, error) { return rand.Read(p) }

// ecdsaLine is a public key of another type than the hosts'.
func ecdsaLine(t *testing.T) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	pub, err := ssh.NewPublicKey(&key.PublicKey)
	must(t, err)
	return strings.TrimSpace(string(ssh.MarshalAuthorizedKey(pub)))
}

// hashOf is a host name as `ssh-keygen -H` writes it, behind |1|.
func hashOf(name string) string {
	salt := []byte("0123456789abcdefghij")
	mac := hmac.New(sha1.New, salt)
	mac.Write([]byte(name))
	e := base64.StdEncoding.EncodeToString
	return e(salt) + "|" + e(mac.Sum(nil))
}

// descendants lists the processes below one.
func descendants(t *testing.T, pid int) []int {
	t.Helper()
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	must(t, err)
	parents := map[int]int{}
	for _, f := range stats {
		text, err := os.ReadFile(f)
		if err != nil {
			continue // ended meanwhile
		}
		child, _ := strconv.Atoi(filepath.Base(filepath.Dir(f)))
		// The name, in parentheses, may hold anything.
		rest := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
		parents[child], _ = strconv.Atoi(rest[1])
	}
	list := []int{pid}
	for i := 0; i < len(list); i++ {
		for child, parent := range parents {
			if parent == list[i] && !slices.Contains(list, child) {
				list = append(list, child)
			}
		}
	}
	return list[1:]
}
