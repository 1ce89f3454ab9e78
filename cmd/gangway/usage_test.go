package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"gangway/launcher/client"
)

// TestUsageFacts: what is known is shown, and what is not known is not 0.
func TestUsageFacts(t *testing.T) {
	for _, c := range []struct{ body, want string }{
		{`{}`, ""},
		{`{"usage":{"sampledAt":"2026-01-01T00:00:00Z","cpuPercent":12.34,"load":{"1m":0.5,"15m":2},"memoryTotalBytes":2147483648,"memoryUsedBytes":1073741824,
			"diskTotalBytes":4096,"diskFreeBytes":1024,"networkReceivedBytes":1048576,"networkSentBytes":0,"runningProcesses":3}}`,
			"cpu used=12.3 %, 3 processes running or ready|load=0.50 over 1m, 2.00 over 15m|memory used=1 GiB of 2 GiB|disk free=1 KiB of 4 KiB|network=1 MiB received, 0 B sent, since the boot"},
		{`{"usage":{"sampledAt":"2026-01-01T00:00:00Z","memoryUsedBytes":1024}}`, "memory used=1 KiB"},
	} {
		var g struct{ Usage *client.Usage }
		if err := json.Unmarshal([]byte(c.body), &g); err != nil {
			t.Fatal(err)
		}
		var got []string
		pairs := usageFacts(g.Usage)
		for i := 0; i+1 < len(pairs); i += 2 {
			if pairs[i+1] != "" && pairs[i] != "sampled" {
				got = append(got, pairs[i]+"="+pairs[i+1])
			}
		}
		if s := strings.Join(got, "|"); s != c.want {
			t.Errorf("%s:\n%s, want\n%s", c.body, s, c.want)
		}
		if g.Usage != nil && !g.Usage.At.Equal(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)) {
			t.Errorf("sampled at %v", g.Usage.At)
		}
	}
}
