package spec

// ParseGB and ParseGPU are the parsers of single values, for fuzzing.

func ParseGB(text string) (GB, error) {
	v, f := parseGB(text)
	if f != nil {
		return 0, newProblem("", f)
	}
	return v, nil
}

func ParseGPU(text string) (*GPU, error) {
	g, f := parseGPU(text)
	if f != nil {
		return nil, newProblem("resources.gpu", f)
	}
	return g, nil
}
