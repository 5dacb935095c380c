package spec

import (
	"fmt"
	"slices"
	"sync"

	"dstack/internal/strictyaml"
)

// nestedFields maps fields that users often write at the top level to the
// mapping that they belong to. Names that several mappings have are left out.
var nestedFields = sync.OnceValue(func() map[string]string {
	places := map[string]string{}
	put := func(where string, rows []fieldRow) {
		for _, r := range rows {
			switch r.name {
			case "name", "type", "path", "count", "port", "key", "size", "memory", "vendor":
				continue
			}
			if places[r.name] == "" {
				places[r.name] = where
			}
		}
	}
	put("resources", resourcesMapping.describe().rows)
	put("resources.gpu", gpuMapping.describe().rows)
	put("scaling", scalingMapping.describe().rows)
	put("registry_auth", registryMapping.describe().rows)
	put("model", modelMappings["openai"].describe().rows)
	put("model", modelMappings["tgi"].describe().rows)
	put("ssh_config", sshMapping.describe().rows)
	places["memory"] = "resources"
	return places
})

// synonyms maps names from other tools to the field with the same meaning.
var synonyms = map[string]string{
	"environment": "env", "script": "commands", "run": "commands", "container": "image", "min_replicas": "replicas", "max_replicas": "replicas",
	"gpus": "resources.gpu", "accelerators": "resources.gpu", "ram": "resources.memory", "healthcheck": "probes", "health_check": "probes",
}

// hintForUnknown returns the hint for an unknown key that is valid elsewhere;
// empty if it is not.
func hintForUnknown(n *strictyaml.Node, key string) string {
	if n.Path != "" {
		if slices.ContainsFunc(serviceMapping.keys,
			func(k strictyaml.Key) bool { return k.Name == key && !k.Unlisted }) {
			return fmt.Sprintf("`%s` is a top-level field; move it out of this mapping", key)
		}
		return ""
	}
	if better := synonyms[key]; better != "" {
		return fmt.Sprintf("use `%s` instead", better)
	}
	if where := nestedFields()[key]; where != "" {
		return fmt.Sprintf("move `%s` into `%s`", key, where)
	}
	return ""
}
