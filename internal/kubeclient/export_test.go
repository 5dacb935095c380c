package kubeclient

// For tests.
var (
	Classify     = classify
	ParseVersion = parseVersion
)

// NewStatusError makes the error of an answer.
var NewStatusError = newStatusError
