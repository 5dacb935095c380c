package kubeclient_test

import (
	"fmt"
	"io"
	"testing"
	"time"

	"dstack/internal/kubeclient"
	"dstack/internal/kubeclient/kubetest"
)

func TestSmoke(t *testing.T) {
	cluster := kubetest.Need(t)
	c := newClient(t, cluster)
	startPod(t, c, newPod("web", "echo hello >/www/index.html; httpd -p 8080 -h /www; while true; do nc -l -p 9000 -e sh -c 'echo part; sleep 1; kill -9 $PPID; echo rest; sleep 30'; done"))
	for range 3 {
		conn, err := c.DialPod(t.Context(), "web", 8080)
		if err != nil {
			t.Fatal(err)
		}
		start := time.Now()
		fmt.Fprintf(conn, "GET / HTTP/1.0\r\n\r\n")
		text, err := io.ReadAll(conn)
		t.Logf("%d %v %v", len(text), err, time.Since(start))
		conn.Close()
	}
	conn, err := c.DialPod(t.Context(), "web", 9000)
	if err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 100)
	n, err := conn.Read(buf)
	t.Logf("%q %v", buf[:n], err)
	kubeclient.Delete(t.Context(), c, kubeclient.Pods, "web", kubeclient.DeleteOptions{Force: true})
	for {
		n, err = conn.Read(buf)
		t.Logf("%q %v", buf[:n], err)
		if err != nil {
			break
		}
	}
}
