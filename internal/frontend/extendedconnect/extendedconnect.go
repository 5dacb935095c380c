// Package extendedconnect makes the HTTP/2 servers of this process accept the extended CONNECT of RFC 8441, which
// browsers need for WebSockets over HTTP/2. net/http has it, and reads whether to offer it from the variable GODEBUG when
// it is initialized. It is off there because most handlers cannot serve such requests; package frontend can.
//
// This package imports little and its path sorts before net/http, so the specification of the language makes Go
// initialize it first. Should that ever change, WebSockets use HTTP/1.1 connections, as without this package; a test of
// package frontend tells.
package extendedconnect

import "os"

const variable = "GODEBUG"

var original, wasSet = os.LookupEnv(variable)

func init() {
	setting := "http2xconnect=1"
	if original != "" {
		setting = original + "," + setting
	}
	_ = os.Setenv(variable, setting) // its name and value are valid
}

// Restore gives the variable its value back, for child processes. It is called once net/http is initialized.
func Restore() {
	if wasSet {
		_ = os.Setenv(variable, original) // its name and value are valid
		return
	}
	_ = os.Unsetenv(variable) // its name is valid
}
