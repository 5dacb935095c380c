// Package gcp rents machines of Google Compute Engine.
package gcp

import _ "golang.org/x/oauth2/google"
