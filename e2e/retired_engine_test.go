package e2e

import (
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A service survives that the engine of its machine is no longer configured: it keeps
// serving, can be replaced and stopped, and the engine's instance is retired then.
func TestEngine_ChangedInTheConfiguration(t *testing.T) {
	h := newParallelHarness(t, "process")
	needBaseImage(t)
	port := findFreePort(t)
	config := fmt.Sprintf("type: service\nname: web\ncommands:\n  - python3 -m http.server %d\nport: %d\n", port, port)
	dir := h.newFolder(config)
	h.applyAndWait(dir)
	h.stopServer()
	if !strings.Contains(h.log.String(), "1 service keeps running: web (1 replica)") || !strings.Contains(h.log.String(), "dstack stop web") {
		t.Errorf("the server's last words are\n%s", h.log.String())
	}

	h.writeFile(filepath.Join(h.serverDir, "config.yml"), "projects:\n- name: main\n  backends:\n  - type: local\n    engine: docker\n")
	h.startServer()
	h.expectStatus(h.serviceURL("web", "/"), 200, "workload")
	h.applyChange(dir, config+"env:\n  - NEW=1\n")
	if v := h.findRun("web"); len(v.Replicas) == 0 || v.Replicas[0].Backend != "local" {
		t.Errorf("after the change: %+v", v.Replicas)
	}
	h.expectStatus(h.serviceURL("web", "/"), 200, "workload")
	h.waitUntil(time.Minute, "the instance is retired", func() error {
		db, err := sql.Open("sqlite", "file:"+filepath.Join(h.serverDir, "data", "sqlite.db")+"?mode=ro")
		if err != nil {
			return err
		}
		defer db.Close()
		var live bool
		if err := db.QueryRow("SELECT live FROM instances WHERE id LIKE 'local-%-process'").Scan(&live); err != nil {
			return err
		}
		if live {
			return errors.New("it is live")
		}
		return nil
	})
	h.stopRun("web")

	// The engine is configured again: its instance takes replicas again.
	h.stopServer()
	h.writeFile(filepath.Join(h.serverDir, "config.yml"), "projects:\n- name: main\n  backends:\n  - type: local\n    engine: process\n")
	h.startServer()
	h.applyChange(dir, config)
	h.expectStatus(h.serviceURL("web", "/"), 200, "workload")
}
