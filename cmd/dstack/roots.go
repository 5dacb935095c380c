package main

// Where the system has no authorities of its own, as in an image that has this program only, those of Mozilla are trusted.
import _ "golang.org/x/crypto/x509roots/fallback"
