package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"
)

// nginx is an nginx in front of the same replica, configured as its manual says for streaming: connections are reused,
// and responses are not buffered.
type nginx struct {
	port int
	cmd  *exec.Cmd
}

const nginxConfig = `%s
pid nginx.pid;
worker_processes auto;
worker_rlimit_nofile %d;
error_log stderr error;
events { worker_connections %[2]d; }
http {
	access_log off;
	client_body_temp_path body;
	proxy_temp_path proxy;
	fastcgi_temp_path fastcgi;
	uwsgi_temp_path uwsgi;
	scgi_temp_path scgi;
	keepalive_requests 1000000;
	upstream replica { server 127.0.0.1:%d; keepalive 64; }
	server {
		listen 127.0.0.1:%d;
		location / {
			proxy_pass http://replica;
			proxy_http_version 1.1;
			proxy_set_header Connection "";
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $remote_addr;
			proxy_buffering off;
			proxy_read_timeout 15m;
		}
	}
}
`

func startNginx(dir string, upstream int) (*nginx, error) {
	n := &nginx{}
	var err error
	if n.port, err = freePort(); err != nil {
		return nil, err
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, err
	}
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // only root may read the folder
	}
	config := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(nginxConfig, user, openFiles, upstream, n.port)
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	n.cmd = exec.Command("nginx", "-p", dir, "-c", config, "-g", "daemon off;")
	n.cmd.Stderr = os.Stderr
	if err := n.cmd.Start(); err != nil {
		return nil, err
	}
	if err := waitUntilServed(fmt.Sprintf("http://127.0.0.1:%d/", n.port), "", 10*time.Second); err != nil {
		n.stop()
		return nil, fmt.Errorf("nginx does not answer: %w", err)
	}
	return n, nil
}

func (n *nginx) stop() {
	_ = n.cmd.Process.Signal(syscall.SIGTERM) // it may have ended already
	_ = n.cmd.Wait()
}
