package spec

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/gpu"
)

// findGPUNotes returns what is probably wrong about the GPUs of a service and of its
// groups: models that this version does not know, and makers that do not make them.
func (s *Service) findGPUNotes() Problems {
	notes := s.Resources.GPU.findNotes("resources.gpu")
	for i, g := range s.Groups {
		notes = append(notes, g.Resources.GPU.findNotes(fmt.Sprintf("groups.%d.resources.gpu", i))...)
	}
	return notes
}

func (g *GPU) findNotes(path string) (notes Problems) {
	if g == nil {
		return nil
	}
	for _, name := range g.Name {
		asked := gpu.ParseRequest(name)
		maker := g.Maker()
		switch {
		case !asked.Known:
			note := Problem{Path: path, Message: fmt.Sprintf("this version knows no GPU called `%.60s`", name),
				Hint: "only machines whose driver reports that name suit"}
			if near := gpu.FindNearest(name); near != "" {
				note.Hint = "did you mean " + near + "?"
			}
			notes = append(notes, note)
		case maker != "" && asked.Maker != "" && maker != asked.Maker:
			notes = append(notes, Problem{Path: path,
				Message: fmt.Sprintf("%s is made by %s, not by %s, so no machine suits", name, asked.Maker, maker),
				Hint:    fmt.Sprintf("write %s:%s, or only the model", asked.Maker, strings.ReplaceAll(name, " ", ""))})
		case asked.SizeGB > 0 && g.Memory != nil && !g.Memory.Contains(GB(asked.SizeGB)):
			notes = append(notes, Problem{Path: path,
				Message: fmt.Sprintf("%s has %dGB, and %s is asked for, so no machine suits", name, asked.SizeGB, g.Memory),
				Hint:    fmt.Sprintf("write %s, or only the memory", strings.Join(slices.Concat(asked.Names[:1], []string{g.Memory.String()}), ":"))})
		}
	}
	return notes
}
