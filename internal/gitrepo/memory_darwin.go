package gitrepo

// limitMemory does nothing: macOS cannot limit another process.
func limitMemory(int, uint64) error { return nil }
