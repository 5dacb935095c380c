package cloud

import (
	"bufio"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// metadataService plays the metadata service of a cloud. Its tokens are valid for a number of uses.
type metadataService struct {
	mu     sync.Mutex
	tokens int // that were given out
	uses   int // of the latest one
	valid  int // how many uses a token has; 0: any number
	action func(w http.ResponseWriter)
}

func (m *metadataService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	m.mu.Lock()
	defer m.mu.Unlock()
	header := func(name, value string) bool { return r.Header.Get(name) == value }
	switch {
	case r.Method == http.MethodPut && r.URL.Path == "/latest/api/token" && header("X-aws-ec2-metadata-token-ttl-seconds", "300"):
		m.tokens, m.uses = m.tokens+1, 0
		_, _ = fmt.Fprintf(w, "TOKEN%d", m.tokens)
	case r.URL.Path == "/latest/meta-data/spot/instance-action" && header("X-aws-ec2-metadata-token", fmt.Sprintf("TOKEN%d", m.tokens)):
		if m.uses++; m.valid > 0 && m.uses > m.valid {
			http.Error(w, "expired", http.StatusUnauthorized)
			return
		}
		m.action(w)
	case r.URL.Path == "/computeMetadata/v1/instance/preempted" && header("Metadata-Flavor", "Google"):
		m.action(w)
	default:
		http.Error(w, "no", http.StatusUnauthorized)
	}
}

// follow runs the watch for a cloud with a client, until it has printed a line that begins so or has polled 20 times. It
// returns that line, and how often it polled.
func (m *metadataService) follow(t *testing.T, notices, client, until string) (line string, polls int) {
	t.Helper()
	server := httptest.NewServer(m)
	defer server.Close()
	address := server.Listener.Addr().String()
	script := strings.NewReplacer("169.254.169.254/80", strings.Replace(address, ":", "/", 1), "address=169.254.169.254", "address="+address).Replace(watchScript)
	path := t.TempDir()
	for _, name := range []string{"cat", "grep", "tr", "timeout", client} {
		program, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(program, filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(filepath.Join(path, "sleep"), []byte("#!/bin/sh\nexit 0\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	command := exec.CommandContext(ctx, "/bin/sh", "-c", "notices="+notices+"\n"+script)
	command.Env = []string{"PATH=" + path, "http_proxy=http://127.0.0.1:9"} // which is not to be used
	out, err := command.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = command.Wait() }()
	defer cancel()
	for lines := bufio.NewScanner(out); polls < 20 && lines.Scan(); {
		if line := strings.TrimSpace(lines.Text()); line == "." {
			polls++
		} else if strings.HasPrefix(line, until) {
			return line, polls
		}
	}
	return "", polls
}

func answer(text string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = fmt.Fprint(w, text) }
}

func refuse(code int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { http.Error(w, `{"action": "none"}`, code) }
}

const awsNotice = `{"action": "terminate",` + "\n" + `"time": "2026-11-29T14:10:00Z"}`

// The notices of both clouds are read with each client that an image may have.
func TestWatchScript_ReadsNotices(t *testing.T) {
	for _, client := range []string{"curl", "wget", "bash"} {
		t.Run(client, func(t *testing.T) {
			t.Parallel()
			want := `notice {"action": "terminate", "time": "2026-11-29T14:10:00Z"}`
			if got, polls := (&metadataService{action: answer(awsNotice)}).follow(t, "aws", client, "notice"); got != want || polls > 0 {
				t.Errorf("aws: %q after %d polls", got, polls)
			}
			if got, polls := (&metadataService{action: answer("TRUE")}).follow(t, "gcp", client, "notice"); got != "notice TRUE" || polls > 0 {
				t.Errorf("gcp: %q after %d polls", got, polls)
			}
			for _, code := range []int{404, 500} {
				if got, polls := (&metadataService{action: refuse(code)}).follow(t, "aws", client, "notice"); got != "" || polls != 20 {
					t.Errorf("aws with code %d: %q after %d polls", code, got, polls)
				}
			}
		})
	}
}

// What is no notice is not taken for one.
func TestWatchScript_IgnoresOtherAnswers(t *testing.T) {
	for notices, text := range map[string]string{"aws": "<html>Sign in</html>", "gcp": "FALSE"} {
		if got, polls := (&metadataService{action: answer(text)}).follow(t, notices, "curl", "notice"); got != "" || polls != 20 {
			t.Errorf("%s: %q after %d polls", notices, got, polls)
		}
	}
}

// A token that is not valid any more is replaced within half a minute.
func TestWatchScript_RenewsToken(t *testing.T) {
	calls := 0
	m := &metadataService{valid: 5, action: func(w http.ResponseWriter) {
		if calls++; calls <= 5 {
			refuse(404)(w)
			return
		}
		answer(awsNotice)(w)
	}}
	if got, polls := m.follow(t, "aws", "curl", "notice"); got == "" || polls > 15 {
		t.Errorf("%q after %d polls of 2 seconds", got, polls)
	}
}

// A machine whose notices cannot be read says so.
func TestWatchScript_SaysThatItIsBlind(t *testing.T) {
	for client, want := range map[string]string{
		"curl": "blind the metadata service, asked with curl, does not answer",
		"tail": "blind the metadata service, asked with neither curl, wget nor bash, does not answer",
	} {
		if got, polls := (&metadataService{action: refuse(500)}).follow(t, "gcp", client, "blind"); got != want || polls != 9 {
			t.Errorf("%s: %q after %d polls", client, got, polls)
		}
	}
}

// The watch ends with its connection, also if it was started with SIGPIPE ignored.
func TestWatchScript_EndsWithConnection(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	script := exec.CommandContext(ctx, "/bin/sh", "-c", "trap '' PIPE; notices=none\nsleep() { :; }\n"+watchScript)
	out, err := script.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := script.Start(); err != nil {
		t.Fatal(err)
	}
	_, _ = bufio.NewReader(out).ReadString('\n')
	_ = out.Close()
	if err := script.Wait(); ctx.Err() != nil {
		t.Errorf("it goes on: %v", err)
	}
}
