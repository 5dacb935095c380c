package spec

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// GatewayDifference is a field in which two configurations of a gateway differ. Secret settings are hidden.
type GatewayDifference struct{ Path, From, To string }

// DiffGateways returns the fields in which two configurations of a gateway differ, by path. It ignores their names.
func DiffGateways(from, to Gateway) ([]GatewayDifference, error) {
	from.Name, to.Name = "", ""
	before, err := flattenGateway(from)
	if err != nil {
		return nil, err
	}
	after, err := flattenGateway(to)
	if err != nil {
		return nil, err
	}
	var all []GatewayDifference
	for path, field := range before {
		if field.real != after[path].real {
			all = append(all, GatewayDifference{path, field.shown, after[path].shown})
		}
	}
	for path, field := range after {
		if _, known := before[path]; !known {
			all = append(all, GatewayDifference{Path: path, To: field.shown})
		}
	}
	slices.SortFunc(all, func(a, b GatewayDifference) int { return strings.Compare(a.Path, b.Path) })
	return all, nil
}

// shownField is a value of a configuration, and as users see it.
type shownField struct{ real, shown string }

// flattenGateway returns the values of a configuration by path. The domain is in its normal form.
func flattenGateway(g Gateway) (map[string]shownField, error) {
	g.Domain = Text(g.DomainName())
	fields := map[string]shownField{}
	for _, isShown := range []bool{false, true} {
		shown := g
		if isShown {
			shown = g.WithoutSecrets()
		}
		text, err := json.Marshal(shown)
		if err != nil {
			return nil, fmt.Errorf("compare configurations of a gateway: %w", err)
		}
		var tree map[string]any
		if err := json.Unmarshal(text, &tree); err != nil {
			return nil, fmt.Errorf("compare configurations of a gateway: %w", err)
		}
		flattenTree("", tree, func(path, value string) {
			field := fields[path]
			if isShown {
				field.shown = value
			} else {
				field.real = value
			}
			fields[path] = field
		})
	}
	return fields, nil
}

func flattenTree(path string, value any, add func(path, value string)) {
	if tree, isTree := value.(map[string]any); isTree {
		for key, item := range tree {
			flattenTree(strings.TrimPrefix(path+"."+key, "."), item, add)
		}
		return
	}
	switch v := value.(type) {
	case nil:
		if path == "certificate" {
			path = "certificate.type" // as with a certificate
		}
		add(path, "none")
	case string:
		add(path, v)
	case []any:
		texts := make([]string, len(v))
		for i, item := range v {
			texts[i] = fmt.Sprint(item)
		}
		add(path, strings.Join(texts, ", "))
	default:
		add(path, fmt.Sprint(v))
	}
}
