package main

import (
	"fmt"
	"io"
	"os"
	"strings"

	"dstack/internal/human"
	"dstack/internal/server"
)

// The variables that set the admin's token.
const (
	tokenVariable     = "DSTACK_SERVER_ADMIN_TOKEN"
	tokenFileVariable = "DSTACK_SERVER_ADMIN_TOKEN_FILE"
)

// readToken reads the token from the flags or, without them, from the environment. It is not the default of the flag,
// because the help shows defaults.
func (o *serverOptions) readToken() error {
	token, file := os.Getenv(tokenVariable), os.Getenv(tokenFileVariable)
	source, fileSource := tokenVariable, tokenFileVariable
	switch {
	case o.token != "" && o.tokenFile != "":
		return newInvalidError("--token and --token-file do not go together", "leave one of them out")
	case o.token != "":
		token, file, source = o.token, "", "--token"
	case o.tokenFile != "":
		token, file, fileSource = "", o.tokenFile, "--token-file"
	case token != "" && file != "":
		return newInvalidError(tokenVariable+" and "+tokenFileVariable+" are both set", "unset one of them")
	}
	if file != "" {
		var err error
		if token, err = readTokenFile(file, fileSource); err != nil {
			return err
		}
		source = file
	}
	o.token = token
	return server.CheckToken(source, token)
}

// readTokenFile returns the token in a file, or on standard input if path is -, without the line end. source names the
// path in errors.
func readTokenFile(path, source string) (string, error) {
	const maxFileBytes = 4096
	in := io.Reader(os.Stdin)
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return "", newInvalidError(fmt.Sprintf("%s: cannot read %s: %s", source, path, human.DescribeFailure(err)), "check the path")
		}
		defer func() { _ = f.Close() }() // it was only read
		if info, err := f.Stat(); err == nil && info.Mode().IsRegular() && info.Mode().Perm()&0o077 != 0 {
			fmt.Fprintf(os.Stderr, "warning: other users of this machine can read the token in %s: chmod 600 %s\n", path, path)
		}
		in = f
	}
	text, err := io.ReadAll(io.LimitReader(in, maxFileBytes))
	if err != nil {
		return "", newInvalidError(fmt.Sprintf("%s: cannot read %s: %s", source, path, human.DescribeFailure(err)), "check the path")
	}
	token := strings.TrimRight(string(text), "\r\n")
	if token == "" {
		return "", newInvalidError(fmt.Sprintf("%s: %s is empty", source, path), "write the token into it, and nothing else")
	}
	return token, nil
}
