package main

import (
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"
	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/gateway"
)

// serverOptions are the flags and the environment of `dstack server`.
type serverOptions struct {
	host         string
	port         int
	logLevel     string
	logFormat    string
	token        string
	makeDefault  bool
	noDefault    bool
	dir          string
	database     string
	domain       string
	publicURL    string
	startTimeout time.Duration
	metrics      string // host:port; empty: no metrics
	limits       gateway.Limits
	hostID       string
}

func (o *serverOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.host, "host", env("DSTACK_SERVER_HOST", "127.0.0.1"), "address to listen on (DSTACK_SERVER_HOST)")
	f.IntVarP(&o.port, "port", "p", 0, "port to listen on (DSTACK_SERVER_PORT, 3000)")
	f.StringVarP(&o.logLevel, "log-level", "l", env("DSTACK_SERVER_LOG_LEVEL", "WARNING"), "DEBUG, INFO, WARNING or ERROR (DSTACK_SERVER_LOG_LEVEL)")
	f.BoolVar(&o.makeDefault, "default", false, "make this server's main project the default of the command line")
	f.BoolVar(&o.noDefault, "no-default", false, "leave the command line's default project as it is")
	f.StringVar(&o.metrics, "metrics", os.Getenv("DSTACK_SERVER_METRICS"), "`ADDRESS` such as 127.0.0.1:9100, for Prometheus to read /metrics (DSTACK_SERVER_METRICS)")
	f.StringVar(&o.token, "token", "", "the admin's token; made on the first start otherwise (DSTACK_SERVER_ADMIN_TOKEN)")
	c.MarkFlagsMutuallyExclusive("default", "no-default")
}

// complete reads the environment, and makes the server's folder.
func (o *serverOptions) complete() error {
	if o.token == "" { // not as the flag's default, which the help shows
		o.token = os.Getenv("DSTACK_SERVER_ADMIN_TOKEN")
	}
	if o.port == 0 {
		port, err := strconv.Atoi(env("DSTACK_SERVER_PORT", "3000"))
		if err != nil || port < 0 || port > 65535 {
			return invalid("DSTACK_SERVER_PORT is not a port: "+os.Getenv("DSTACK_SERVER_PORT"), "give a number from 1 to 65535")
		}
		o.port = port
	}
	if _, ok := logLevels[strings.ToUpper(o.logLevel)]; !ok {
		return invalid(fmt.Sprintf("%q is not a log level", o.logLevel), "use DEBUG, INFO, WARNING or ERROR")
	}
	home, err := os.UserHomeDir()
	if err != nil && os.Getenv("DSTACK_SERVER_DIR") == "" {
		return invalid("there is no home folder to keep the server's data in", "set HOME or DSTACK_SERVER_DIR")
	}
	o.dir = env("DSTACK_SERVER_DIR", filepath.Join(home, ".dstack", "server"))
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.dir, "data"), 0o700); err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("cannot use the folder %s: %v", o.dir, err), Hint: "set DSTACK_SERVER_DIR to one that can be written", Cause: err}
	}
	o.database = env("DSTACK_DATABASE_URL", "sqlite://"+filepath.Join(o.dir, "data", "sqlite.db"))
	o.domain = env("DSTACK_GATEWAY_DOMAIN", "localhost")
	o.publicURL = os.Getenv("DSTACK_SERVER_URL")
	o.logFormat = env("DSTACK_SERVER_LOG_FORMAT", "standard")
	o.startTimeout, err = time.ParseDuration(env("DSTACK_SERVER_START_TIMEOUT", startWait.String()))
	if err != nil || o.startTimeout <= 0 {
		return invalid("DSTACK_SERVER_START_TIMEOUT is not a duration: "+os.Getenv("DSTACK_SERVER_START_TIMEOUT"), "write it as 90s, 30m or 2h")
	}
	if err := o.completeLimits(); err != nil {
		return err
	}
	o.hostID, err = hostID(o.dir)
	return err
}

// completeLimits reads how much may wait for a service without a replica.
// What a configuration says in `hold` comes first.
func (o *serverOptions) completeLimits() (err error) {
	if text := os.Getenv("DSTACK_GATEWAY_HOLD_TIMEOUT"); text != "" {
		if o.limits.HoldTimeout, err = time.ParseDuration(text); err != nil || o.limits.HoldTimeout < time.Second || o.limits.HoldTimeout > time.Hour {
			return invalid("DSTACK_GATEWAY_HOLD_TIMEOUT is not a duration from 1s to 1h: "+text, "write it as 90s or 5m")
		}
	}
	held, err := wholeNumber("DSTACK_GATEWAY_HOLD_REQUESTS")
	if err != nil {
		return err
	}
	o.limits.MaxHeld = int(held)
	o.limits.HeldBytes, err = wholeNumber("DSTACK_GATEWAY_HOLD_BYTES")
	return err
}

// wholeNumber reads a variable that is a number from 1 on; 0: it is not set.
func wholeNumber(name string) (int64, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, invalid(name+" is not a number: "+text, "give a whole number from 1 on")
	}
	return n, nil
}

func invalid(message, hint string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint}
}

// env is an environment variable, or the default where it is not set.
func env(name, otherwise string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return otherwise
}

func (o *serverOptions) path(name string) string { return filepath.Join(o.dir, name) }

func (o *serverOptions) address() string { return net.JoinHostPort(o.host, strconv.Itoa(o.port)) }

// url is where people reach the server, unless they said so themselves.
func (o *serverOptions) url() string {
	if o.publicURL != "" {
		return strings.TrimSuffix(o.publicURL, "/")
	}
	host := o.host
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(o.port))
}

// loopback says that nobody elsewhere can reach the server.
func (o *serverOptions) loopback() bool {
	ip := net.ParseIP(o.host)
	return o.host == "localhost" || (ip != nil && ip.IsLoopback())
}

// owner names this process among all servers that share the database.
func (o *serverOptions) owner() string { return o.hostID + "/" + strconv.Itoa(os.Getpid()) }

// hostID names this installation's machine. It is made once and kept, so that
// a restarted server finds what it placed here.
func hostID(dir string) (string, error) {
	file := filepath.Join(dir, "host-id")
	if text, err := os.ReadFile(file); err == nil && len(strings.TrimSpace(string(text))) > 0 {
		return strings.TrimSpace(string(text)), nil
	}
	id := uuid.NewString()[:8]
	if err := os.WriteFile(file, []byte(id+"\n"), 0o600); err != nil {
		return "", fmt.Errorf("cannot write %s: %w", file, err)
	}
	return id, nil
}

var logLevels = map[string]slog.Level{
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn, "WARN": slog.LevelWarn, "ERROR": slog.LevelError,
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: logLevels[strings.ToUpper(level)]}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
