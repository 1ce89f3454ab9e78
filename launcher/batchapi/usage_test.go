package batchapi

import (
	"encoding/json"
	"testing"
	"time"

	"gangway/launcher/job"
)

// TestUsageOf: what was not read is absent, zeros are there.
func TestUsageOf(t *testing.T) {
	zero, half, gib := 0.0, 0.5, uint64(1<<30)
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for want, u := range map[string]*job.Usage{
		`null`: nil,
		`{"sampledAt":"2026-01-02T03:04:05.0000000Z"}`:                                                               {At: at},
		`{"sampledAt":"2026-01-02T03:04:05.0000000Z","cpuPercent":0,"load":{"1m":0.5},"memoryUsedBytes":1073741824}`: {At: at, CPUPercent: &zero, Load1: &half, MemoryUsed: &gib},
	} {
		b, err := json.Marshal(usageOf(u))
		if err != nil || string(b) != want {
			t.Errorf("%s (%v), want %s", b, err, want)
		}
	}
}
