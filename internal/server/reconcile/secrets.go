package reconcile

import (
	"context"
	"slices"
	"strings"

	"dstack/internal/decide/lifecycle"
	"dstack/internal/dstack"
)

// minHiddenLength is the length of the shortest secret that is hidden: hiding
// shorter ones makes a text unreadable.
const minHiddenLength = 4

// hiddenSecret replaces the value of a secret.
const hiddenSecret = "•••"

// hideSecrets removes the values of secrets from the reports of attempts that are
// over: the error of an engine and the last output become events and reasons. The
// logs of a service stay as it wrote them.
func (r *Reconciler) hideSecrets(ctx context.Context, placed []lifecycle.PlacedReplica, reports []dstack.Report) error {
	for i := range reports {
		rep := &reports[i]
		at := slices.IndexFunc(placed, func(p lifecycle.PlacedReplica) bool { return p.Replica.Attempt == rep.Attempt })
		if at < 0 || !rep.State.IsOver() || rep.Error == "" && len(rep.LastOutput) == 0 {
			continue
		}
		values, err := r.Store.SecretValues(ctx, placed[at].Run)
		if err != nil {
			return err
		}
		hide := newSecretReplacer(values)
		if hide == nil {
			continue
		}
		rep.Error = hide.Replace(rep.Error)
		rep.LastOutput = slices.Clone(rep.LastOutput)
		for line := range rep.LastOutput {
			rep.LastOutput[line] = hide.Replace(rep.LastOutput[line])
		}
	}
	return nil
}

// checkResolvedSize returns an error if a variable is too long for the kernel with the
// values of secrets. Without them it was checked when the run was submitted.
func checkResolvedSize(run, resolved dstack.Run) error {
	if len(run.Spec.Configuration.SecretNames()) == 0 {
		return nil
	}
	for _, p := range resolved.Spec.Configuration.LaunchProblems() {
		if strings.HasPrefix(p.Path, "env") {
			return &dstack.Error{Kind: dstack.Invalid, Message: "cannot start with the values of its secrets: " + p.Message, Hint: p.Hint}
		}
	}
	return nil
}

// newSecretReplacer returns a replacer for values, and for each line of those with
// several; nil: there is nothing to replace.
func newSecretReplacer(values map[string]string) *strings.Replacer {
	var lines []string
	for _, value := range values {
		for line := range strings.Lines(value) {
			if line = strings.TrimSpace(line); len(line) >= minHiddenLength {
				lines = append(lines, line)
			}
		}
	}
	if len(lines) == 0 {
		return nil
	}
	slices.SortFunc(lines, func(a, b string) int { return len(b) - len(a) }) // the longest match wins
	pairs := make([]string, 0, 2*len(lines))
	for _, line := range lines {
		pairs = append(pairs, line, hiddenSecret)
	}
	return strings.NewReplacer(pairs...)
}
