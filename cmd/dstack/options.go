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

	"dstack/internal/certificate"
	"dstack/internal/dstack"
	"dstack/internal/gateway"
	"dstack/internal/human"
)

// serverOptions are the settings of `dstack server`, from its flags and from the environment.
type serverOptions struct {
	host           string
	portFlag       string // --port; empty: not set
	port           int
	logLevel       string
	logFormat      string
	token          string
	tokenFile      string
	takeOver       bool
	makeDefault    bool
	noDefault      bool
	dir            string
	database       string
	domain         string
	publicURL      string
	startTimeout   time.Duration
	metricsAddress string // host:port of the listener for /metrics; empty: none
	limits         gateway.Limits
	ssh            sshSetting
	published      publishedFlags
	ports          publishedPorts
	acme           certificate.ACME
	hostID         string
	hasFastPath    bool
	peerURL        string // at which other servers reach this one; empty: they cannot
}

func (o *serverOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.host, "host", envOr("DSTACK_SERVER_HOST", "127.0.0.1"), "address to listen on (DSTACK_SERVER_HOST)")
	f.StringVarP(&o.portFlag, "port", "p", "", "the `PORT` to listen on (DSTACK_SERVER_PORT, 3000)")
	f.StringVarP(&o.logLevel, "log-level", "l", envOr("DSTACK_SERVER_LOG_LEVEL", "WARNING"),
		"DEBUG, INFO, WARNING or ERROR (DSTACK_SERVER_LOG_LEVEL)")
	f.BoolVar(&o.takeOver, "take-over", false, "replace the running server of this folder without an interruption, if there is one")
	f.BoolVar(&o.makeDefault, "default", false, "make this server's main project the default of the command line")
	f.BoolVar(&o.noDefault, "no-default", false, "do not change the default project of the command line")
	f.StringVar(&o.metricsAddress, "metrics", os.Getenv("DSTACK_SERVER_METRICS"),
		"`ADDRESS` such as 127.0.0.1:9100, for Prometheus to read /metrics (DSTACK_SERVER_METRICS)")
	o.published.addTo(f)
	f.StringVar(&o.token, "token", "",
		"the admin's token, at least 32 characters; generated on the first start if not set (DSTACK_SERVER_ADMIN_TOKEN)")
	f.StringVar(&o.tokenFile, "token-file", "",
		"read the admin's token from `FILE`, - for stdin; other users of the machine see --token (DSTACK_SERVER_ADMIN_TOKEN_FILE)")
}

// readEnvironment reads the settings that the flags did not set, and creates the server's folder. Errors about a setting
// are of kind Invalid.
func (o *serverOptions) readEnvironment() error {
	if o.makeDefault && o.noDefault {
		return newInvalidError("--default and --no-default do not go together", "leave one of them out")
	}
	if err := o.readToken(); err != nil {
		return err
	}
	if err := o.readPort(); err != nil {
		return err
	}
	if err := o.readSSHPort(); err != nil {
		return err
	}
	var err error
	if o.ports, err = o.published.read(); err != nil {
		return err
	}
	if o.hasFastPath, err = readFastPath(); err != nil {
		return err
	}
	if o.acme, err = certificate.ACMEFromEnvironment(os.Getenv); err != nil {
		return err
	}
	if _, ok := logLevels[strings.ToUpper(o.logLevel)]; !ok {
		return newInvalidError(fmt.Sprintf("%q is not a log level", o.logLevel), "use DEBUG, INFO, WARNING or ERROR")
	}
	if err := o.readLocation(); err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Join(o.dir, "data"), 0o700); err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("cannot use the folder %s: %s", o.dir, human.DescribeFailure(err)),
			Hint: "set DSTACK_SERVER_DIR to a folder that you may write to", Cause: err}
	}
	o.domain = os.Getenv("DSTACK_GATEWAY_DOMAIN")
	o.publicURL = os.Getenv("DSTACK_SERVER_URL")
	if err := o.checkAddresses(); err != nil {
		return err
	}
	o.logFormat = envOr("DSTACK_SERVER_LOG_FORMAT", "standard")
	o.startTimeout, err = time.ParseDuration(envOr("DSTACK_SERVER_START_TIMEOUT", defaultStartTimeout.String()))
	if err != nil || o.startTimeout <= 0 {
		return newInvalidError("DSTACK_SERVER_START_TIMEOUT is not a duration: "+os.Getenv("DSTACK_SERVER_START_TIMEOUT"),
			"write it as 90s, 30m or 2h")
	}
	if err := o.readLimits(); err != nil {
		return err
	}
	if err := o.readPeerURL(); err != nil {
		return err
	}
	o.hostID, err = ensureHostID(o.dir)
	return err
}

// readLocation sets the server's folder and its database. It creates nothing.
func (o *serverOptions) readLocation() error {
	home, err := os.UserHomeDir()
	if err != nil && os.Getenv("DSTACK_SERVER_DIR") == "" {
		return newInvalidError("there is no home folder for the server's data", "set HOME or DSTACK_SERVER_DIR")
	}
	o.dir = envOr("DSTACK_SERVER_DIR", filepath.Join(home, ".dstack", "server"))
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	o.database = envOr("DSTACK_DATABASE_URL", "sqlite://"+filepath.Join(o.dir, "data", "sqlite.db"))
	return nil
}

// readPort reads the port from the flag or, without it, from DSTACK_SERVER_PORT.
func (o *serverOptions) readPort() error {
	source, text := "--port", o.portFlag
	if text == "" {
		source, text = "DSTACK_SERVER_PORT", envOr("DSTACK_SERVER_PORT", "3000")
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return newInvalidError(fmt.Sprintf("%s: `%s` is not a port", source, text), "give a number from 1 to 65535")
	}
	o.port = int(port)
	return nil
}

// readLimits reads the limits for requests that wait for a replica. The field `hold` of a configuration overrides them.
func (o *serverOptions) readLimits() (err error) {
	if text := os.Getenv("DSTACK_GATEWAY_HOLD_TIMEOUT"); text != "" {
		timeout, err := time.ParseDuration(text)
		if err != nil || timeout < time.Second || timeout > time.Hour {
			return newInvalidError("DSTACK_GATEWAY_HOLD_TIMEOUT is not a duration from 1s to 1h: "+text, "write it as 90s or 5m")
		}
		o.limits.HoldTimeout = timeout
	}
	held, err := readPositive("DSTACK_GATEWAY_HOLD_REQUESTS")
	if err != nil {
		return err
	}
	o.limits.MaxHeld = int(held)
	o.limits.HeldBytes, err = readPositive("DSTACK_GATEWAY_HOLD_BYTES")
	return err
}

// readPositive returns the value of an environment variable that must be at least 1, or 0 if it is not set.
func readPositive(name string) (int64, error) {
	text := os.Getenv(name)
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(text, 10, 64)
	if err != nil || n < 1 {
		return 0, newInvalidError(name+" is not a whole number of at least 1: "+text, "write it in digits, such as 100")
	}
	return n, nil
}

func newInvalidError(message, hint string) error {
	return &dstack.Error{Kind: dstack.Invalid, Message: message, Hint: hint}
}

// envOr returns the value of an environment variable, or the fallback if it is empty.
func envOr(name, fallback string) string {
	if v := os.Getenv(name); v != "" {
		return v
	}
	return fallback
}

// filePath returns the path of a file or folder in the server's folder.
func (o *serverOptions) filePath(name string) string { return filepath.Join(o.dir, name) }

func (o *serverOptions) listenAddress() string { return net.JoinHostPort(o.host, strconv.Itoa(o.port)) }

// serverURL returns the URL of the server for clients: the configured public URL, or that of the listener.
func (o *serverOptions) serverURL() string {
	if o.publicURL != "" {
		return strings.TrimSuffix(o.publicURL, "/")
	}
	host := o.host
	if ip := net.ParseIP(host); host == "" || (ip != nil && ip.IsUnspecified()) {
		host = "127.0.0.1"
	}
	return "http://" + net.JoinHostPort(host, strconv.Itoa(o.port))
}

// isLoopback reports whether only this machine can reach the server.
func (o *serverOptions) isLoopback() bool {
	ip := net.ParseIP(o.host)
	return o.host == "localhost" || (ip != nil && ip.IsLoopback())
}

// leaseOwner returns the name of this process, which is unique among the servers that share the database.
func (o *serverOptions) leaseOwner() string { return o.hostID + "/" + strconv.Itoa(os.Getpid()) }

// ensureHostID returns the ID of this machine. The first call stores it in dir, so that a restarted server recognizes the
// replicas that it placed on this machine.
func ensureHostID(dir string) (string, error) {
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
	"DEBUG": slog.LevelDebug, "INFO": slog.LevelInfo, "WARNING": slog.LevelWarn, "WARN": slog.LevelWarn,
	"ERROR": slog.LevelError,
}

func newLogger(w io.Writer, level, format string) *slog.Logger {
	o := &slog.HandlerOptions{Level: logLevels[strings.ToUpper(level)]}
	if format == "json" {
		return slog.New(slog.NewJSONHandler(w, o))
	}
	return slog.New(slog.NewTextHandler(w, o))
}
