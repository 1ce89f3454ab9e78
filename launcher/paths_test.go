package launcher

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"

	"gangway/launcher/auth"
	"gangway/launcher/batchapi"
)

// Paths that are not clean are nobody's to redirect: a stranger is told that he is
// one, and who may ask gets an error of Batch's form.
func TestUncleanPaths(t *testing.T) {
	b := bare(t)
	ca, err := auth.OpenCA(filepath.Join(t.TempDir(), "ca"), auth.CAOptions{Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	keys, err := auth.OpenKeyring(filepath.Join(t.TempDir(), "keys"), auth.KeyringOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, secret, err := keys.AddToken(auth.Principal{Name: "ops", Role: auth.Admin}, 0)
	if err != nil {
		t.Fatal(err)
	}
	api := batchapi.New(batchapi.Config{Backend: b, Auth: keyring{keys}, Version: "test"})
	s := httptest.NewUnstartedServer(paths(ca.JoinHandler(), api))
	s.Config.DisableGeneralOptionsHandler = true
	s.Start()
	defer s.Close()

	ask := func(method, path, token string) (*http.Response, string) {
		c, err := net.Dial("tcp", s.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if token != "" {
			token = "Authorization: Bearer " + token + "\r\n"
		}
		if _, err := fmt.Fprintf(c, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\n%s\r\n", method, path, token); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: method})
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatalf("%s %s: %v", method, path, err)
		}
		return resp, string(body)
	}
	for _, method := range []string{"GET", "POST", "DELETE", "OPTIONS", "CONNECT"} {
		for _, path := range []string{"//jobs", "/jobs/../x", "/jobs/./x", "/jobs//", "//", "/./", "/..", "/jobs//tasks", "/gangway/v1/../v1/metrics", "/" + auth.JoinPath, auth.JoinPath + "/",
			"/jobs/%2e%2e/x", "http://x//jobs", "/jobs/j/tasks/t/files/a//b"} {
			if method == "CONNECT" && path[0] != '/' {
				continue
			}
			if resp, body := ask(method, path+"?api-version=2024-07-01.20.0", ""); resp.StatusCode != 401 {
				t.Errorf("a stranger's %s %s: %d %s", method, path, resp.StatusCode, body)
			}
			resp, body := ask(method, path+"?api-version=2024-07-01.20.0", secret.Reveal())
			var e struct{ Code string }
			if err := json.Unmarshal([]byte(body), &e); err != nil || e.Code == "" || resp.StatusCode != 400 && resp.StatusCode != 404 && resp.StatusCode != 405 {
				t.Errorf("%s %s: %d %s", method, path, resp.StatusCode, body)
			}
		}
	}
	for _, c := range []struct {
		path string
		want int
	}{{"/jobs", 200}, {"/jobs/", 200}, {"/", 404}, {"http://x/jobs", 200}, {"//jobs", 400}, {"/jobs/../x", 400}, {"/jobs/%2e%2e", 404}} {
		if resp, body := ask("GET", c.path+"?api-version=2024-07-01.20.0", secret.Reveal()); resp.StatusCode != c.want {
			t.Errorf("%s: %d, want %d: %s", c.path, resp.StatusCode, c.want, body)
		}
	}
	// What a server may be asked without a path is asked by somebody too.
	if resp, body := ask("OPTIONS", "*", ""); resp.StatusCode != 401 {
		t.Errorf("a stranger's OPTIONS *: %d %s", resp.StatusCode, body)
	}
	if resp, _ := ask("OPTIONS", "*", secret.Reveal()); resp.StatusCode != 404 {
		t.Errorf("OPTIONS *: %d", resp.StatusCode)
	}
	if resp, body := ask("POST", auth.JoinPath, ""); resp.StatusCode != 400 { // reached, with nothing to read
		t.Errorf("joining: %d %s", resp.StatusCode, body)
	}
}
