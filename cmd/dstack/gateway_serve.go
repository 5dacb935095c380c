package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"dstack/internal/dstack"
	"dstack/internal/human"
)

// gatewayServeOptions are the settings of `dstack gateway serve`, from its flags and from the environment.
type gatewayServeOptions struct {
	servers        []string // URLs
	token          string   // empty: the process joined before
	tokenFile      string
	dir            string
	name           string // of this machine, for people
	address        string // at which clients reach it, for people and DNS checks
	host           string // to listen on; empty: all addresses
	httpsFlag      string
	httpFlag       string
	httpsPort      int
	httpPort       int
	logLevel       string
	logFormat      string
	metricsAddress string
	takeOver       bool
	hasFastPath    bool
}

func gatewayServeCommand() *cobra.Command {
	var o gatewayServeOptions
	c := &cobra.Command{
		Use:   "serve",
		Short: "Serve a gateway on this machine: join it, follow its routes and forward its requests.",
		Long: "Serve a gateway on this machine: join it with a token, follow its routes and forward its requests.\n" +
			"The process dials the server and needs no port of it to be reachable from there. While no server answers, it\n" +
			"goes on serving what it knows, also after a restart.",
		Example: "dstack gateway token main        # on your machine: prints the command with the token\n" +
			"dstack gateway serve --server https://dstack.example.com --token dgw_…\n" +
			"dstack gateway serve             # again, later: the folder has what it needs\n" +
			"dstack gateway serve --take-over # replace the running process, for example by a new version, without an interruption",
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			if err := o.readEnvironment(); err != nil {
				return err
			}
			return runGatewayServe(c.Context(), o, c.OutOrStdout(), c.ErrOrStderr())
		},
	}
	o.addFlags(c)
	return c
}

func (o *gatewayServeOptions) addFlags(c *cobra.Command) {
	f := c.Flags()
	f.StringSliceVar(&o.servers, "server", nil,
		"`URL` of a server; repeat it for several servers on one database (DSTACK_GATEWAY_SERVER, separated by commas)")
	f.StringVar(&o.token, "token", "", "the `TOKEN` that dstack gateway token printed, needed once (DSTACK_GATEWAY_TOKEN)")
	f.StringVar(&o.tokenFile, "token-file", "",
		"read the token from `FILE`, - for stdin; other users of the machine see --token (DSTACK_GATEWAY_TOKEN_FILE)")
	f.StringVar(&o.dir, "dir", "", "the `FOLDER` for what the process keeps (DSTACK_GATEWAY_DIR, ~/.dstack/gateway)")
	f.StringVar(&o.name, "name", "", "the `NAME` of this machine in lists (DSTACK_GATEWAY_NAME, the host name)")
	f.StringVar(&o.address, "address", "", "the `ADDRESS` at which clients reach this machine (DSTACK_GATEWAY_ADDRESS)")
	f.StringVar(&o.host, "gateway-host", "", "the `ADDRESS` to listen on (DSTACK_GATEWAY_HOST, all addresses)")
	f.StringVar(&o.httpsFlag, "https-port", "", "the `PORT` for HTTPS (DSTACK_GATEWAY_HTTPS_PORT, 443)")
	f.StringVar(&o.httpFlag, "http-port", "", "the `PORT` for HTTP (DSTACK_GATEWAY_HTTP_PORT, 80)")
	f.StringVarP(&o.logLevel, "log-level", "l", envOr("DSTACK_SERVER_LOG_LEVEL", "WARNING"),
		"the `LEVEL`: DEBUG, INFO, WARNING or ERROR (DSTACK_SERVER_LOG_LEVEL)")
	f.BoolVar(&o.takeOver, "take-over", false, "replace the running process of this folder without an interruption, if there is one")
	f.StringVar(&o.metricsAddress, "metrics", os.Getenv("DSTACK_SERVER_METRICS"),
		"`ADDRESS` such as 127.0.0.1:9100, for Prometheus to read /metrics (DSTACK_SERVER_METRICS)")
}

// readEnvironment reads the settings that the flags did not set, and creates the folder. Errors about a setting are
// of kind Invalid.
func (o *gatewayServeOptions) readEnvironment() error {
	if len(o.servers) == 0 && os.Getenv("DSTACK_GATEWAY_SERVER") != "" {
		o.servers = strings.Split(os.Getenv("DSTACK_GATEWAY_SERVER"), ",")
	}
	if err := o.readToken(); err != nil {
		return err
	}
	if _, ok := logLevels[strings.ToUpper(o.logLevel)]; !ok {
		return newInvalidError(fmt.Sprintf("%q is not a log level", o.logLevel), "use DEBUG, INFO, WARNING or ERROR")
	}
	o.logFormat = envOr("DSTACK_SERVER_LOG_FORMAT", "standard")
	var err error
	if o.hasFastPath, err = readFastPath(); err != nil {
		return err
	}
	if o.httpsPort, err = readGatewayPort("--https-port", o.httpsFlag, "DSTACK_GATEWAY_HTTPS_PORT", 443); err != nil {
		return err
	}
	if o.httpPort, err = readGatewayPort("--http-port", o.httpFlag, "DSTACK_GATEWAY_HTTP_PORT", 80); err != nil {
		return err
	}
	for target, variable := range map[*string]string{
		&o.name: "DSTACK_GATEWAY_NAME", &o.address: "DSTACK_GATEWAY_ADDRESS", &o.host: "DSTACK_GATEWAY_HOST", &o.dir: "DSTACK_GATEWAY_DIR",
	} {
		if *target == "" {
			*target = os.Getenv(variable)
		}
	}
	if o.name == "" {
		o.name, _ = os.Hostname() // a machine without a name is shown by its ID
	}
	return o.createFolder()
}

// readToken reads the token from the flag, a file or the environment.
func (o *gatewayServeOptions) readToken() error {
	file := o.tokenFile
	if o.token == "" && file == "" {
		o.token, file = os.Getenv("DSTACK_GATEWAY_TOKEN"), os.Getenv("DSTACK_GATEWAY_TOKEN_FILE")
	}
	if o.token != "" || file == "" {
		return nil
	}
	var text []byte
	var err error
	if file == "-" {
		text, err = io.ReadAll(io.LimitReader(os.Stdin, maxTokenFileBytes))
	} else {
		text, err = os.ReadFile(file)
	}
	if err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("cannot read the token from %s: %s", file, human.DescribeFailure(err)),
			Hint: "check the path", Cause: err}
	}
	o.token = strings.TrimSpace(string(text))
	return nil
}

const maxTokenFileBytes = 4 << 10

func (o *gatewayServeOptions) createFolder() error {
	if o.dir == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return newInvalidError("there is no home folder for what the gateway keeps", "set HOME, or use --dir")
		}
		o.dir = filepath.Join(home, ".dstack", "gateway")
	}
	var err error
	if o.dir, err = filepath.Abs(o.dir); err != nil {
		return err
	}
	if err := os.MkdirAll(o.dir, 0o700); err != nil {
		return &dstack.Error{Kind: dstack.Invalid, Message: fmt.Sprintf("cannot use the folder %s: %s", o.dir, human.DescribeFailure(err)),
			Hint: "choose a folder that you may write to with --dir", Cause: err}
	}
	return nil
}

// readGatewayPort reads a port from a flag or, without it, from the environment.
func readGatewayPort(flag, text, variable string, otherwise int) (int, error) {
	source := flag
	if text == "" {
		source, text = variable, os.Getenv(variable)
	}
	if text == "" {
		return otherwise, nil
	}
	port, err := strconv.ParseUint(text, 10, 16)
	if err != nil || port == 0 {
		return 0, newInvalidError(fmt.Sprintf("%s: `%s` is not a port", source, text), "give a number from 1 to 65535")
	}
	return int(port), nil
}
