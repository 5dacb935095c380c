package process

import (
	"os"
	"testing"
	"time"

	"dstack/internal/dstack"
)

// A newer server finds the files of attempts that an older server started, and an older
// keeper reads stop.json of a newer server: the names in the files must not change.
func TestFolder_FileFormats(t *testing.T) {
	dir := folder(t.TempDir())
	at := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	for _, c := range []struct {
		name  string
		value any
		want  string
	}{
		{"kept.json", keeperState{KeeperPID: 7, LeaderPID: 8, LeaderStartTime: "9", BootID: "b", StartedAt: at},
			`{"Keeper":7,"Leader":8,"Birth":"9","Boot":"b","StartedAt":"2026-11-23T12:00:00Z"}`},
		{"stop.json", stopRequest{Deadline: at, Graceful: true},
			`{"Deadline":"2026-11-23T12:00:00Z","Gently":true}`},
		{"exit.json", exitRecord{State: dstack.AttemptExited, ExitCode: 3, StartedAt: at, EndedAt: at},
			`{"Outcome":"exited","Code":3,"StartedAt":"2026-11-23T12:00:00Z","EndedAt":"2026-11-23T12:00:00Z"}`},
		{"exit.json", exitRecord{State: dstack.AttemptRefused, Error: "e", Permanent: true, LastOutput: []string{"l"}, StartedAt: at, EndedAt: at},
			`{"Outcome":"refused","Code":0,"Error":"e","Permanent":true,"LastOut":["l"],` +
				`"StartedAt":"2026-11-23T12:00:00Z","EndedAt":"2026-11-23T12:00:00Z"}`},
	} {
		if err := dir.writeJSON(c.name, c.value); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(dir.path(c.name)); err != nil || string(got) != c.want {
			t.Errorf("%s is\n%s, want\n%s", c.name, got, c.want)
		}
	}
}
