package kubernetes

import (
	"errors"
	"strings"
	"testing"
	"time"

	"dstack/internal/dstack"
	"dstack/internal/kubeclient"
)

// Only an image without a shell is called that: what refuses commands is named.
func TestExplainSilence(t *testing.T) {
	long := time.Now().Add(-time.Minute)
	target := uploadTarget{uploads: uploads{image: "web:1"}}
	failure := func(kind dstack.Kind, meaning kubeclient.Meaning) error {
		return &dstack.Error{Kind: kind, Message: "exec is denied", Cause: &kubeclient.Failure{Meaning: meaning, Cause: errors.New("403")}}
	}
	for name, c := range map[string]struct {
		err       error
		runsSince time.Time
		kind      dstack.Kind
		text      string // empty: it is waited for
	}{
		"a policy":                    {failure(dstack.Invalid, kubeclient.RefusedByPolicy), long, dstack.Invalid, "exec is denied"},
		"a missing right":             {failure(dstack.Forbidden, kubeclient.NoRight), long, dstack.Forbidden, "exec is denied"},
		"a policy that is new":        {failure(dstack.Invalid, kubeclient.RefusedByPolicy), time.Now(), "", ""},
		"no shell":                    {&dstack.Error{Kind: dstack.Invalid, Message: "the pod has no program"}, long, dstack.Invalid, "image web:1 has no /bin/sh"},
		"no tar, before all is known": {&exitError{code: exitNoTar}, time.Time{}, dstack.Invalid, "image web:1 has no tar"},
		"a script that fails":         {&exitError{code: exitNotYet}, long, dstack.Unavailable, "does not take the code"},
	} {
		err := target.explainSilence(c.err, c.runsSince)
		if (err != nil) != (c.text != "") || err != nil && (dstack.KindOf(err) != c.kind || !strings.Contains(err.Error(), c.text)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
