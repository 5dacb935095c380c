package server

import (
	"errors"
	"net/url"

	"dstack/internal/catalogue"
	"dstack/internal/dstack"
	"dstack/internal/strictyaml"
)

// readCatalog reads where the types and prices of clouds are downloaded.
func (r *configReader) readCatalog(n *strictyaml.Node) (at *url.URL) {
	r.ReadFields(n, "`catalog`", []strictyaml.Field{
		{Name: "url", Required: "url: https://…", Read: func(n *strictyaml.Node) {
			text, ok := r.ReadText(n)
			if !ok {
				return
			}
			u, err := catalogue.ParseURL(text)
			if known, ok := errors.AsType[*dstack.Error](err); ok {
				r.Add(n, known.Message, known.Hint)
				return
			}
			at = u
		}},
	})
	return at
}
