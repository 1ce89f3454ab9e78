package batchapi

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
)

func TestRefusalsLogNoSecret(t *testing.T) {
	const secret = "gangway_0123456789ab_secret"
	for _, header := range []string{secret, "Bearer: " + secret, "bearer " + secret, "token=" + secret + " x", secret + " x", "SharedKey " + secret + ":" + secret} {
		var log bytes.Buffer
		h := New(Config{Backend: newMemory(), Auth: keyring{}, Log: slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))})
		r := httptest.NewRequest(http.MethodGet, "/jobs", nil)
		r.Header.Set("Authorization", header)
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != http.StatusUnauthorized && w.Code != http.StatusForbidden {
			t.Errorf("%q: status %d", header, w.Code)
		}
		if out := log.String() + w.Body.String(); strings.Contains(out, secret) || log.Len() == 0 {
			t.Errorf("%q: said %s", header, out)
		}
	}
}
