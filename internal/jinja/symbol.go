package jinja

import "slices"

// The scoping rules of jinja2 follow from its compilation to Python. The
// symbol tables reproduce jinja2/idtracking.py.

// variableID is a name at a nesting level. Sibling blocks share the variable.
type variableID struct {
	level int
	name  string
}

// loadKind says what a variable holds when its scope is entered.
type loadKind uint8

const (
	loadNothing   loadKind = iota // no value
	loadParameter                 // the value that the statement assigns, such as a loop item
	loadContext                   // the render's variable of that name
	loadAlias                     // the variable of that name in an outer scope
)

type variableLoad struct {
	variableID
	load loadKind
	from variableID // source of an alias
}

// maxNames is the number of names that a scope may have. Lookups are linear.
const maxNames = 400

type reference struct {
	name string
	to   variableID
}

// symbolTable holds the names of one scope.
type symbolTable struct {
	level  int
	parent *symbolTable
	refs   []reference
	loads  []variableLoad
	stores []string
}

func (s *symbolTable) newInner() *symbolTable {
	if s == nil {
		return &symbolTable{}
	}
	return &symbolTable{level: s.level + 1, parent: s}
}

func (s *symbolTable) clone() *symbolTable {
	c := *s
	c.refs = slices.Clone(s.refs)
	c.loads = slices.Clone(s.loads)
	c.stores = slices.Clone(s.stores)
	return &c
}

func (s *symbolTable) findHere(name string) (variableID, bool) {
	for i := range s.refs {
		if s.refs[i].name == name {
			return s.refs[i].to, true
		}
	}
	return variableID{}, false
}

func (s *symbolTable) findName(name string) (variableID, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.findHere(name); ok {
			return v, true
		}
	}
	return variableID{}, false
}

func (s *symbolTable) defineName(name string, l loadKind, from variableID) variableID {
	v := variableID{s.level, name}
	s.setReference(reference{name, v})
	s.setLoad(variableLoad{v, l, from})
	return v
}

func (s *symbolTable) setReference(r reference) {
	for i := range s.refs {
		if s.refs[i].name == r.name {
			s.refs[i] = r
			return
		}
	}
	if len(s.refs) >= maxNames {
		panic(&Error{Kind: KindLimit, Message: "a block of the template uses too many names", Line: 1})
	}
	s.refs = append(s.refs, r)
}

func (s *symbolTable) setLoad(l variableLoad) {
	for i := range s.loads {
		if s.loads[i].variableID == l.variableID {
			s.loads[i] = l
			return
		}
	}
	s.loads = append(s.loads, l)
}

func (s *symbolTable) addStore(name string) {
	if !slices.Contains(s.stores, name) {
		s.stores = append(s.stores, name)
	}
}

func (s *symbolTable) storeName(name string) {
	s.addStore(name)
	if _, known := s.findHere(name); known {
		return
	}
	if outer, ok := s.parent.findName(name); ok {
		s.defineName(name, loadAlias, outer)
		return
	}
	s.defineName(name, loadNothing, variableID{})
}

func (s *symbolTable) addParameter(name string) variableID {
	s.addStore(name)
	return s.defineName(name, loadParameter, variableID{})
}

func (s *symbolTable) useName(name string) {
	if _, known := s.findName(name); !known {
		s.defineName(name, loadContext, variableID{})
	}
}

// mergeBranches merges the branches of an if. A name that only some branches
// set is loaded from the outer scope.
func (s *symbolTable) mergeBranches(branches []*symbolTable) {
	type count struct {
		name string
		n    int
	}
	var counts []count
	for _, b := range branches {
		for _, name := range b.stores {
			if slices.Contains(s.stores, name) {
				continue
			}
			i := slices.IndexFunc(counts, func(c count) bool { return c.name == name })
			if i < 0 {
				counts = append(counts, count{name, 0})
				i = len(counts) - 1
			}
			counts[i].n++
		}
	}
	for _, b := range branches {
		for _, r := range b.refs {
			s.setReference(r)
		}
		for _, l := range b.loads {
			s.setLoad(l)
		}
		for _, name := range b.stores {
			s.addStore(name)
		}
	}
	for _, c := range counts {
		if c.n == len(branches) {
			continue
		}
		target, _ := s.findName(c.name)
		if outer, ok := s.parent.findName(c.name); ok {
			s.setLoad(variableLoad{target, loadAlias, outer})
			continue
		}
		s.setLoad(variableLoad{target, loadContext, variableID{}})
	}
}

// visitNode adds the names of a node that belong to this scope.
func (s *symbolTable) visitNode(n node) {
	switch n := n.(type) {
	case *nameNode:
		switch n.use {
		case useParam:
			s.addParameter(n.name)
		case useStore:
			s.storeName(n.name)
		default:
			s.useName(n.name)
		}
	case *namespaceNode:
		s.useName(n.name)
	case *ifNode:
		s.visitIf(n)
	case *macroNode:
		s.storeName(n.name)
	case *assignNode:
		s.visitNode(n.value)
		s.visitNode(n.target)
	case *forNode:
		s.visitNode(n.iter)
	case *callBlockNode:
		if n.call != nil {
			s.visitNode(n.call)
		}
	case *filterBlockNode:
		s.visitNode(n.filter)
	case *withNode:
		s.visitNodes(n.values)
	case *assignBlockNode:
		s.visitNode(n.target)
	case *scopeNode: // has its own scope
	default:
		visitChildren(n, s.visitNode)
	}
}

func (s *symbolTable) visitNodes(list []node) {
	for _, n := range list {
		s.visitNode(n)
	}
}

func (s *symbolTable) visitIf(n *ifNode) {
	s.visitNode(n.test)
	body, elifs, otherwise := s.clone(), s.clone(), s.clone()
	body.visitNodes(n.body)
	for _, e := range n.elifs {
		elifs.visitNode(e)
	}
	otherwise.visitNodes(n.otherwise)
	s.mergeBranches([]*symbolTable{body, elifs, otherwise})
}

// visitTarget adds the names that a loop assigns.
func (s *symbolTable) visitTarget(n node) {
	if name, is := n.(*nameNode); is {
		s.addParameter(name.name)
		return
	}
	visitChildren(n, s.visitTarget)
}

// undeclaredNames returns the names that a body reads before it assigns them.
func undeclaredNames(body []node, names ...string) []string {
	var found []string
	var visit func(n node)
	visit = func(n node) {
		name, is := n.(*nameNode)
		if !is {
			visitChildren(n, visit)
			return
		}
		if name.use == useLoad && slices.Contains(names, name.name) {
			if !slices.Contains(found, name.name) {
				found = append(found, name.name)
			}
		} else if i := slices.Index(names, name.name); i >= 0 {
			names = slices.Delete(slices.Clone(names), i, i+1)
		}
	}
	for _, n := range body {
		visit(n)
	}
	return found
}
