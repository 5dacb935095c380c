package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// chatService is a model service with one replica on its own server, and the
// paths to this replica.
type chatService struct {
	dir          string
	server       *dstackServer
	nginx        *nginx
	nginxMissing string // why nginx is not measured; empty: it is measured
	paths        []requestPath
}

// requestPath is a way for a request to reach a replica or a server.
type requestPath struct {
	name    string
	address string
	path    string
	pid     int                      // of the process in between, or of the server; 0: none
	token   string                   // empty: the token of our servers
	dial    func() (net.Conn, error) // nil: to address
	version string                   // in the header X-API-VERSION; empty: no header
}

const modelName = "chat"

func (b *benchmark) newChat() (c *chatService, err error) {
	c = &chatService{dir: filepath.Join(b.dir, "chat-service")}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	port, err := freePort()
	if err != nil {
		return c, err
	}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return c, err
	}
	config := fmt.Sprintf("type: service\nname: %s\nport: %d\nenv: [HOST=127.0.0.1]\ncommands:\n- exec %s %d\n"+
		"model: {type: chat, name: bench, format: openai}\n", modelName, port, b.workload, port)
	if err := os.WriteFile(filepath.Join(c.dir, "service.dstack.yml"), []byte(config), 0o600); err != nil {
		return c, err
	}
	if c.server, err = startServer(b.binary, filepath.Join(b.dir, "chat"), "process"); err != nil {
		return c, err
	}
	if _, err := c.server.applyAndWait(modelName, c.dir); err != nil {
		return c, err
	}
	const path = "/v1/chat/completions"
	c.paths = []requestPath{
		{name: "direct", address: fmt.Sprintf("127.0.0.1:%d", port), path: path},
		{name: "gateway", address: fmt.Sprintf("127.0.0.1:%d", c.server.port), path: "/proxy/models/main" + path,
			pid: c.server.cmd.Process.Pid},
	}
	if c.nginxMissing = checkNginx(); c.nginxMissing != "" {
		return c, nil
	}
	if c.nginx, err = startNginx(filepath.Join(b.dir, "nginx"), port); err != nil {
		return c, err
	}
	c.paths = append(c.paths, requestPath{name: "nginx", address: fmt.Sprintf("127.0.0.1:%d", c.nginx.port), path: path,
		pid: c.nginx.cmd.Process.Pid})
	return c, nil
}

// checkNginx returns why nginx is not measured, or an empty string.
func checkNginx() string {
	if why := os.Getenv("DSTACK_TEST_WITHOUT_NGINX"); why != "" {
		return why
	}
	if _, err := exec.LookPath("nginx"); err != nil {
		return strings.TrimPrefix(err.Error(), "exec: ")
	}
	return ""
}

func (c *chatService) close() error {
	if c.nginx != nil {
		c.nginx.stop()
	}
	if c.server == nil {
		return nil
	}
	err := c.server.removeService(modelName, c.dir)
	c.server.stop()
	return err
}
