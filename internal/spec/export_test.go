package spec

// ParseGB parses a size, for fuzz tests.

func ParseGB(text string) (GB, error) {
	v, f := parseGB(text)
	if f != nil {
		return 0, newProblem("", f)
	}
	return v, nil
}

// ParseGPU parses the short form of a GPU, for fuzz tests.
func ParseGPU(text string) (*GPU, error) {
	g, f := parseGPU(text)
	if f != nil {
		return nil, newProblem("resources.gpu", f)
	}
	return g, nil
}
