package jinja

import "slices"

// The scoping rules of jinja2 follow from how it compiles to Python. These
// are its symbol tables, rule by rule: jinja2/idtracking.py.

// variable is a name at a level of nesting; blocks side by side share it.
type variable struct {
	level int
	name  string
}

// load says what a variable holds when its scope is entered.
type load uint8

const (
	loadNothing   load = iota // it is missing
	loadParameter             // whoever enters sets it
	loadContext               // what the template was given by that name
	loadAlias                 // what the scope around calls by that name
)

type loading struct {
	variable
	load load
	from variable // of an alias
}

// maxNames bounds the names of a scope, which are looked through one by one.
const maxNames = 400

type reference struct {
	name string
	to   variable
}

// symbols are the names of one scope.
type symbols struct {
	level  int
	parent *symbols
	refs   []reference
	loads  []loading
	stores []string
}

func (s *symbols) inner() *symbols {
	if s == nil {
		return &symbols{}
	}
	return &symbols{level: s.level + 1, parent: s}
}

func (s *symbols) copy() *symbols {
	c := *s
	c.refs = slices.Clone(s.refs)
	c.loads = slices.Clone(s.loads)
	c.stores = slices.Clone(s.stores)
	return &c
}

func (s *symbols) here(name string) (variable, bool) {
	for i := range s.refs {
		if s.refs[i].name == name {
			return s.refs[i].to, true
		}
	}
	return variable{}, false
}

func (s *symbols) find(name string) (variable, bool) {
	for ; s != nil; s = s.parent {
		if v, ok := s.here(name); ok {
			return v, true
		}
	}
	return variable{}, false
}

func (s *symbols) define(name string, l load, from variable) variable {
	v := variable{s.level, name}
	s.refer(reference{name, v})
	s.setLoad(loading{v, l, from})
	return v
}

func (s *symbols) refer(r reference) {
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

func (s *symbols) setLoad(l loading) {
	for i := range s.loads {
		if s.loads[i].variable == l.variable {
			s.loads[i] = l
			return
		}
	}
	s.loads = append(s.loads, l)
}

func (s *symbols) addStore(name string) {
	if !slices.Contains(s.stores, name) {
		s.stores = append(s.stores, name)
	}
}

func (s *symbols) store(name string) {
	s.addStore(name)
	if _, known := s.here(name); known {
		return
	}
	if outer, ok := s.parent.find(name); ok {
		s.define(name, loadAlias, outer)
		return
	}
	s.define(name, loadNothing, variable{})
}

func (s *symbols) parameter(name string) variable {
	s.addStore(name)
	return s.define(name, loadParameter, variable{})
}

func (s *symbols) use(name string) {
	if _, known := s.find(name); !known {
		s.define(name, loadContext, variable{})
	}
}

// join merges the branches of an if: a name that not every branch sets
// keeps what it was.
func (s *symbols) join(branches []*symbols) {
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
			s.refer(r)
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
		target, _ := s.find(c.name)
		if outer, ok := s.parent.find(c.name); ok {
			s.setLoad(loading{target, loadAlias, outer})
			continue
		}
		s.setLoad(loading{target, loadContext, variable{}})
	}
}

// see notes the names of a node that belong to this scope.
func (s *symbols) see(n node) {
	switch n := n.(type) {
	case *nameNode:
		switch n.use {
		case useParam:
			s.parameter(n.name)
		case useStore:
			s.store(n.name)
		default:
			s.use(n.name)
		}
	case *namespaceNode:
		s.use(n.name)
	case *ifNode:
		s.seeIf(n)
	case *macroNode:
		s.store(n.name)
	case *assignNode:
		s.see(n.value)
		s.see(n.target)
	case *forNode:
		s.see(n.iter)
	case *callBlockNode:
		if n.call != nil {
			s.see(n.call)
		}
	case *filterBlockNode:
		s.see(n.filter)
	case *withNode:
		s.seeAll(n.values)
	case *assignBlockNode:
		s.see(n.target)
	case *scopeNode: // a scope of its own
	default:
		children(n, s.see)
	}
}

func (s *symbols) seeAll(list []node) {
	for _, n := range list {
		s.see(n)
	}
}

func (s *symbols) seeIf(n *ifNode) {
	s.see(n.test)
	body, elifs, otherwise := s.copy(), s.copy(), s.copy()
	body.seeAll(n.body)
	for _, e := range n.elifs {
		elifs.see(e)
	}
	otherwise.seeAll(n.otherwise)
	s.join([]*symbols{body, elifs, otherwise})
}

// seeTarget notes the names that a loop sets.
func (s *symbols) seeTarget(n node) {
	if name, is := n.(*nameNode); is {
		s.parameter(name.name)
		return
	}
	children(n, s.seeTarget)
}

// undeclared tells which of the names a body reads before it sets them.
func undeclared(body []node, names ...string) []string {
	var found []string
	var visit func(n node)
	visit = func(n node) {
		name, is := n.(*nameNode)
		if !is {
			children(n, visit)
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
