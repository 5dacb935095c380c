package spec

import (
	"fmt"
	"slices"
	"strings"

	"dstack/internal/strictyaml"
)

// secretPlaces is the hint for a reference at a place that knows none.
const secretPlaces = "references can be used in `commands`, `env` and `registry_auth`"

// newMisplacedSecret returns the fault of a secret at a place that is no template.
func newMisplacedSecret(name string) *fault {
	return &fault{Message: fmt.Sprintf("`${{ secrets.%.60s }}` cannot be used here", name),
		Hint: fmt.Sprintf("secrets can be used in `env` and `registry_auth`: write NAME=${{ secrets.%.60s }} in `env`, "+
			"and read the variable NAME", name)}
}

// NotIn returns the problems that others do not have at the same path. A variable
// has two paths: env.NAME, and env.0 where it is written in a list.
func (p Problems) NotIn(others Problems) Problems {
	var left Problems
	for _, one := range p {
		isSame := func(other Problem) bool {
			areVariables := strings.HasPrefix(one.Path, "env.") && strings.HasPrefix(other.Path, "env.")
			return other.Path == one.Path || areVariables && other.Message == one.Message
		}
		if !slices.ContainsFunc(others, isSame) {
			left = append(left, one)
		}
	}
	return left
}

// FindBadReferences returns a problem for each reference in a configuration that
// nothing replaces, with its place in the file. References without a value yet are
// none; see Interpolate.
func FindBadReferences(file string, text []byte) Problems {
	r := newReader()
	root := strictyaml.Load(text, &strictyaml.Problems{})
	if root == nil {
		return nil // not valid YAML
	}
	r.tree = root
	r.checkReferences(root)
	return r.buildProblems(file, text)
}

func (r *reader) checkReferences(n *strictyaml.Node) {
	if n.IsScalar() && strings.Contains(n.Text, "${{") {
		if f := checkWrittenReferences(n.Path, n.Text); f != nil {
			r.AddFault(n, f)
		}
	}
	for _, p := range n.Pairs {
		r.checkReferences(p.Value)
	}
	for _, item := range n.Items {
		r.checkReferences(item)
	}
}

// fieldOf returns the field that a path belongs to: commands for commands.1 and for
// groups.0.commands.1.
func fieldOf(path string) string {
	field, rest, _ := strings.Cut(path, ".")
	if field == "groups" || field == "replicas" {
		_, inGroup, _ := strings.Cut(rest, ".")
		if own, _, _ := strings.Cut(inGroup, "."); own != "" {
			return own
		}
	}
	return field
}

// checkWrittenReferences checks the text of a field as it is in a file.
func checkWrittenReferences(path, text string) *fault {
	var f *fault
	switch fieldOf(path) {
	case "commands", "setup":
		_, f = fillReferences(text, referenceValue{find: func(name string) ([]piece, bool) {
			return nil, name == "run.args"
		}}, hintRunArgs)
	case "registry_auth":
		_, f = fillReferences(text, referenceValue{hasSecrets: true, find: func(name string) ([]piece, bool) {
			return nil, strings.HasPrefix(name, "env.")
		}}, hintRegistry)
	default:
		f = checkOtherReferences(path, text)
	}
	return f
}

// checkOtherReferences checks the text of a field in which clients replace
// nothing. In a chat template, ${{ is a dollar sign and an expression of Jinja.
func checkOtherReferences(path, text string) *fault {
	isTemplate := strings.HasPrefix(path, "env") || strings.HasPrefix(path, "registry_auth")
	isJinja := strings.HasPrefix(path, "model.chat_template")
	for _, p := range parseTemplate(text) {
		name := p.secretName()
		switch {
		case !p.isReference, isJinja && name == "", isTemplate && name != "":
			continue
		case name != "":
			return newMisplacedSecret(name)
		case !isTemplate:
			return &fault{Message: fmt.Sprintf("`%.60s` cannot be used here", p.text), Hint: secretPlaces}
		}
		return checkTemplateReference(p)
	}
	return nil
}

// checkTemplateReference returns the fault of a reference to something else than
// a secret in a template.
func checkTemplateReference(ref piece) *fault {
	if !ref.isClosed { // the text after it may be a secret value
		ref.text = "${{"
	}
	if f := checkReference(ref); f != nil {
		return f
	}
	hint := "only ${{ secrets.NAME }} can be used here; write $${{ for the text ${{"
	if name, ok := strings.CutPrefix(ref.name, "env."); ok {
		hint = fmt.Sprintf("only ${{ secrets.NAME }} can be used here; to take a variable from your environment, write "+
			"`env` as a list with `- %.60s`", name)
	}
	return &fault{Message: fmt.Sprintf("there is no value for `%.60s`", ref.name), Hint: hint}
}

// CheckReferences returns a problem for each reference in a submitted service that
// the server does not resolve. Clients have replaced the references in commands,
// so that only secrets are refused there: other references are text that a user
// escaped.
func CheckReferences(s *Service, p Profile) Problems {
	var all Problems
	check := func(prefix string, values []configValue) {
		for _, v := range values {
			if !strings.Contains(v.value, "${{") {
				continue
			}
			f := checkOtherReferences(v.path, v.value)
			if field := fieldOf(v.path); field == "commands" || field == "setup" {
				f = checkSentCommand(v.value)
			}
			if f != nil {
				all = append(all, newProblem(prefix+v.path, f))
			}
		}
	}
	check("", flatten(*s))
	var params configValues
	params.addParams(p.Params)
	check("profile.", params)
	return all
}

func checkSentCommand(text string) *fault {
	for _, p := range parseTemplate(text) {
		if name := p.secretName(); name != "" {
			return newMisplacedSecret(name)
		}
	}
	return nil
}

var (
	shellVariable = newPattern(`\$\{([A-Za-z_][A-Za-z0-9_.]*)\}`)
	onlyVariable  = newPattern(`^\$([A-Za-z_][A-Za-z0-9_]*)$`)
)

// FindNotes returns what is valid in a service as it was written, but probably
// meant otherwise: a variable of a shell in env, which no shell replaces, and a
// probe that sends a body where most servers ignore it. Call it before ResolveEnv.
// The problems have paths; see Locate.
func (s *Service) FindNotes() Problems {
	all := append(s.findProbeNotes(), s.findGPUNotes()...)
	for _, v := range s.Env {
		found := shellVariable.FindStringSubmatch(v.Value)
		if found == nil {
			found = onlyVariable.FindStringSubmatch(v.Value)
		}
		if v.Open || found == nil {
			continue
		}
		p := Problem{Path: "env." + v.Name,
			Message: fmt.Sprintf("`%.60s` in `env` is plain text: nothing replaces it", found[0])}
		prefix, name, dotted := strings.Cut(found[1], ".")
		switch {
		case dotted && strings.EqualFold(prefix, "secrets") && secretNamePattern.MatchString(name):
			p.Hint = fmt.Sprintf("for a secret, write ${{ secrets.%.60s }}", name)
		case found[1] == v.Name:
			p.Hint = fmt.Sprintf("to take it from your environment, write `env` as a list with `- %s`; for a secret, "+
				"write ${{ secrets.%s }}", v.Name, v.Name)
		default:
			p.Hint = fmt.Sprintf("to take it from your environment, write %s: {key: %.60s}; for a secret, write "+
				"${{ secrets.%.60s }}", v.Name, found[1], found[1])
		}
		all = append(all, p)
	}
	return all
}
