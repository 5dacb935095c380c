package main

import (
	"fmt"

	"github.com/spf13/pflag"
)

// outputFlag is the flag -o of a command that prints a result.
type outputFlag struct{ format string }

func (o *outputFlag) addTo(f *pflag.FlagSet) {
	f.StringVarP(&o.format, "output", "o", "", "`json`: print results as JSON")
}

// isJSON reports whether the result is to be JSON. Another format is an error of kind Invalid.
func (o *outputFlag) isJSON() (bool, error) {
	if o.format != "" && o.format != "json" {
		return false, newInvalidError(fmt.Sprintf("%q is not an output format", o.format), "only json is")
	}
	return o.format == "json", nil
}
