package e2e

import (
	"archive/tar"
	"bufio"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"dstack/internal/api"
)

// TestFullDisk fills the disk of the server's logs. The service stays ready, the
// server logs the problem once, and logs are kept again as soon as there is space.
func TestFullDisk(t *testing.T) {
	runParallel(t)
	needPiece(t, "mount", "DSTACK_TEST_MOUNT")
	h := newStoppedHarness(t, "process")
	logs := filepath.Join(h.serverDir, "projects")
	if err := os.MkdirAll(logs, 0o700); err != nil {
		t.Fatal(err)
	}
	mount := func(args ...string) {
		if out, err := exec.Command("mount", append(args, "-t", "tmpfs", "tmpfs", logs)...).CombinedOutput(); err != nil {
			t.Fatalf("mount: %v: %s", err, out)
		}
	}
	mount("-o", "size=256k")
	t.Cleanup(func() { // runs before the cleanup of the harness
		if out, err := exec.Command("umount", "-l", logs).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	h.startServer()
	config := h.workloadConfig("talker")

	config = strings.Replace(config, "- exec ./workload",
		"- (for i in $(seq 100000); do echo line $i of many that fill the disk of the server; done; while sleep .2; do echo still here; done) &\n- exec ./workload", 1)
	h.applyAndWait(h.newFolder(config))
	h.expectStatus(h.serviceURL("talker", "/"), 200)
	const full = "the disk is full: output is lost until space is freed"
	h.waitUntil(20*time.Second, "the server logs that its disk is full", func() error {
		if !strings.Contains(h.log.String(), full) {
			return fmt.Errorf("it does not")
		}
		return nil
	})
	h.expectStatus(h.serviceURL("talker", "/"), 200)
	if v := h.findRun("talker"); v.Status != api.StatusReady {
		t.Errorf("the service is %s while the logs' disk is full, want ready", v.Status)
	}

	mount("-o", "remount,size=64m")
	h.waitUntil(30*time.Second, "logs are kept again, with a line about lost output", func() error {
		r := h.runCLI("logs", "talker")
		if r.code != 0 || !strings.Contains(r.out, "still here") || !strings.Contains(r.out, "lines lost: the disk was full") {
			return fmt.Errorf("exit status %d, %d bytes, ending with %q", r.code, len(r.out), r.out[max(0, len(r.out)-200):])
		}
		return nil
	})
	if times := strings.Count(h.log.String(), full); times != 1 {
		t.Errorf("the server logged that %d times, want once", times)
	}
	h.stopRun("talker")
}

// TestInterruptedUpload interrupts an upload. The server keeps no part of it, and
// accepts the same upload afterwards.
func TestInterruptedUpload(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	h.expectResponse("POST", h.serverURL()+"/api/project/main/repos/init", h.token, `{"repo_id": "cut", "repo_info": {"repo_type": "local", "repo_dir": "/cut"}}`, 200)
	code := packFile(t, strings.Repeat("a large file. ", 100_000))
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(code)))
	before := h.listFiles()
	for _, part := range []float64{0, 0.01, 0.5, 0.99} {
		if got := h.uploadCode(code, hash, part); strings.Contains(got, " 200 ") {
			t.Errorf("after %.0f%% of the upload the response is %s", part*100, got)
		}
	}
	h.waitUntil(10*time.Second, "no part of the upload is kept", func() error {
		if after := h.listFiles(); after != before {
			return fmt.Errorf("the server's folder contained\n%sand contains\n%s", before, after)
		}
		return nil
	})
	if got := h.uploadCode(code, strings.Repeat("0", 64), 1); !strings.Contains(got, " 400 ") {
		t.Errorf("the response to an upload with a wrong hash is %s", got)
	}
	if got := h.uploadCode(code, hash, 1); !strings.Contains(got, " 200 ") {
		t.Errorf("the response to the complete upload is %s", got)
	}
}

// TestUploadsAreSealed checks that nothing of an upload is readable in the server's folder
// and its database, during the upload, after it, and after the server was killed.
func TestUploadsAreSealed(t *testing.T) {
	runParallel(t)
	h := newHarness(t, "process")
	h.expectResponse("POST", h.serverURL()+"/api/project/main/repos/init", h.token, `{"repo_id": "cut", "repo_info": {"repo_type": "local", "repo_dir": "/cut"}}`, 200)
	const marker = "canary of an upload. "
	code := packFile(t, strings.Repeat(marker, 200_000))
	hash := fmt.Sprintf("%x", sha256.Sum256([]byte(code)))
	check := func(when string) {
		t.Helper()
		if found := h.findFilesWith(marker); len(found) > 0 {
			t.Errorf("the upload is readable %s it, in %v", when, found)
		}
	}
	c, _ := h.sendUpload(code, hash, 0.9)
	h.waitUntil(10*time.Second, "a part of the upload is on disk", func() error {
		check("during")
		spooled, _ := filepath.Glob(filepath.Join(h.serverDir, "tmp", "upload-*"))
		if len(spooled) == 1 {
			if info, err := os.Stat(spooled[0]); err == nil && info.Size() > int64(len(code))/2 {
				return nil
			}
		}
		return fmt.Errorf("%v", spooled)
	})
	h.killServer()
	check("after the end of the server during")
	_ = c.Close()
	h.startServer()
	if got := h.uploadCode(code, hash, 1); !strings.Contains(got, " 200 ") {
		t.Fatalf("the response to the upload is %s", got)
	}
	check("after")
	h.killServer()
	check("after the end of the server after")
	h.startServer()
}

// packFile returns an archive with one file.
func packFile(t *testing.T, content string) string {
	t.Helper()
	var archive strings.Builder
	w := tar.NewWriter(&archive)
	err := w.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: "file.txt", Mode: 0o644, Size: int64(len(content))})
	if err == nil {
		_, err = w.Write([]byte(content))
	}
	if err := errors.Join(err, w.Close()); err != nil {
		t.Fatal(err)
	}
	return archive.String()
}

// uploadCode sends the first part of an upload (part is from 0 to 1) and closes the
// connection. It returns the status line of the response, if there is one.
func (h *harness) uploadCode(code, hash string, part float64) string {
	h.t.Helper()
	c, err := h.sendUpload(code, hash, part)
	if err != nil {
		return errors.Join(err, c.Close()).Error()
	}
	defer c.Close()
	if part < 1 {
		if err := c.(*net.TCPConn).CloseWrite(); err != nil {
			return err.Error()
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
	line, _ := bufio.NewReader(c).ReadString('\n')
	return line
}

// sendUpload sends the first part of an upload and returns the connection.
func (h *harness) sendUpload(code, hash string, part float64) (net.Conn, error) {
	h.t.Helper()
	body := "--edge\r\nContent-Disposition: form-data; name=\"file\"; filename=\"" + hash + "\"\r\n\r\n" + code + "\r\n--edge--\r\n"
	c, err := net.Dial("tcp", strings.TrimPrefix(h.serverURL(), "http://"))
	if err != nil {
		h.t.Fatal(err)
	}
	head := fmt.Sprintf("POST /api/project/main/repos/upload_code?repo_id=cut HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer %s\r\n"+
		"Content-Type: multipart/form-data; boundary=edge\r\nContent-Length: %d\r\nConnection: close\r\n\r\n", h.token, len(body))
	_, err = c.Write([]byte(head + body[:int(part*float64(len(body)))]))
	return c, err
}

// listFiles lists the server's files except the database.
func (h *harness) listFiles() string {
	h.t.Helper()
	var list strings.Builder
	err := filepath.WalkDir(h.serverDir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && !strings.Contains(path, "sqlite.db") {
			fmt.Fprintln(&list, path)
		}
		return nil
	})
	if err != nil {
		h.t.Fatal(err)
	}
	return list.String()
}
