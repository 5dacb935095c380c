package spec

import (
	"fmt"
	"slices"
	"sync"

	"dstack/internal/strictyaml"
)

// nestedFields says where fields belong that people write into the service
// itself, or beside where they belong. Names that many mappings have are not
// among them.
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
	put("resources", resourcesBlock.describe().rows)
	put("resources.gpu", gpuBlock.describe().rows)
	put("scaling", scalingBlock.describe().rows)
	put("registry_auth", registryBlock.describe().rows)
	put("model", modelTables["openai"].describe().rows)
	put("model", modelTables["tgi"].describe().rows)
	put("ssh_config", sshBlock.describe().rows)
	places["memory"] = "resources"
	return places
})

// synonyms are what other languages of this kind call the same.
var synonyms = map[string]string{
	"environment": "env", "script": "commands", "run": "commands", "container": "image", "min_replicas": "replicas", "max_replicas": "replicas",
	"gpus": "resources.gpu", "accelerators": "resources.gpu", "ram": "resources.memory", "healthcheck": "probes", "health_check": "probes",
}

// hintForUnknown is the hint for a key that is right, but in another place.
func hintForUnknown(n *strictyaml.Node, key string) string {
	if n.Path != "" {
		if slices.ContainsFunc(serviceBlock.keys, func(k strictyaml.Key) bool { return k.Name == key && !k.Unlisted }) {
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
