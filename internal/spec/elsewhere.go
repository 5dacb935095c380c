package spec

import (
	"fmt"
	"slices"
	"sync"

	"dstack/internal/strictyaml"
)

// misplaced says where fields belong that people write into the service
// itself, or beside where they belong. Names that many mappings have are not
// among them.
var misplaced = sync.OnceValue(func() map[string]string {
	places := map[string]string{}
	put := func(where string, rows []row) {
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
	put("resources", resourcesBlock.described().rows)
	put("resources.gpu", gpuBlock.described().rows)
	put("scaling", scalingBlock.described().rows)
	put("registry_auth", registryBlock.described().rows)
	put("model", modelTables["openai"].described().rows)
	put("model", modelTables["tgi"].described().rows)
	put("ssh_config", sshBlock.described().rows)
	places["memory"] = "resources"
	return places
})

// synonyms are what other languages of this kind call the same.
var synonyms = map[string]string{
	"environment": "env", "script": "commands", "run": "commands", "container": "image", "min_replicas": "replicas", "max_replicas": "replicas",
	"gpus": "resources.gpu", "accelerators": "resources.gpu", "ram": "resources.memory", "healthcheck": "probes", "health_check": "probes",
}

// elsewhere is the hint for a key that is right, but in another place.
func elsewhere(n *strictyaml.Node, key string) string {
	if n.Path != "" {
		if slices.ContainsFunc(serviceBlock.keys, func(k strictyaml.Key) bool { return k.Name == key && !k.Rare }) {
			return fmt.Sprintf("`%s` belongs to the configuration itself, not here", key)
		}
		return ""
	}
	if better := synonyms[key]; better != "" {
		return fmt.Sprintf("that is called `%s` here", better)
	}
	if where := misplaced()[key]; where != "" {
		return fmt.Sprintf("`%s` belongs into `%s`", key, where)
	}
	return ""
}
