package jinja

// node is an element of the syntax tree: an expression or a statement.
type node interface{}

// nameUse says whether a name is read, assigned or a parameter.
type nameUse uint8

const (
	useLoad nameUse = iota
	useStore
	useParam
)

// Expressions.
type (
	nameNode struct {
		name string
		use  nameUse
		line int
	}
	constNode struct{ value Value }
	tupleNode struct{ items []node }
	listNode  struct{ items []node }
	dictNode  struct{ keys, values []node }
	condNode  struct {
		test, then, otherwise node // otherwise may be nil
		line                  int
	}
	binaryNode struct {
		op          string // + - * / // % ** and or
		left, right node
	}
	unaryNode struct {
		op string // + - not
		x  node
	}
	compareNode struct {
		first node
		ops   []string // == != < <= > >= in "not in"
		rest  []node
	}
	concatNode struct{ items []node }
	attrNode   struct {
		x    node
		name string
	}
	itemNode  struct{ x, index node }
	sliceNode struct{ start, stop, step node } // each may be nil
	callNode  struct {
		x node // the callee, or the operand of a filter or test; nil in a filter block
		callArgs
		line int
	}
	filterNode struct {
		name string
		callNode
	}
	testNode struct {
		name string
		callNode
	}
	namespaceNode struct { // the target of {% set ns.attr = ... %}
		name, attr string
	}
)

// callArgs are the arguments of a call as the template writes them.
type callArgs struct {
	args     []node
	kwargs   []kwargNode
	star     node // *args, or nil
	starStar node // **kwargs, or nil
}

type kwargNode struct {
	name  string
	value node
}

// Statements.
type (
	dataNode   struct{ text string }
	outputNode struct {
		items []node // dataNode or expression
		lines []int  // the line of each item
	}
	forNode struct {
		target, iter, test node // test may be nil
		body, otherwise    []node
		recursive          bool
		line               int
	}
	ifNode struct {
		test      node
		body      []node
		elifs     []*ifNode
		otherwise []node
		line      int
	}
	macroNode struct { // a macro, or the body of a call block, which has no name
		name     string
		args     []*nameNode
		defaults []node
		body     []node
		line     int
	}
	callBlockNode struct {
		call  *callNode // nil for {% generation %}, which calls its own body
		macro *macroNode
		line  int
	}
	filterBlockNode struct {
		body   []node
		filter *filterNode
		line   int
	}
	withNode struct {
		targets, values []node
		body            []node
		line            int
	}
	assignNode struct {
		target, value node
		line          int
	}
	assignBlockNode struct {
		target node
		filter *filterNode // or nil
		body   []node
		line   int
	}
	scopeNode struct { // {% autoescape false %}
		option node
		body   []node
	}
	jumpNode struct { // break or continue
		flow flow
		line int
	}
)

// visitChildren calls visit with each direct child of n in the order of
// jinja2's visitors. The scoping rules depend on that order.
func visitChildren(n node, visit func(node)) {
	all := func(list []node) {
		for _, c := range list {
			visit(c)
		}
	}
	some := func(c node) {
		if c != nil {
			visit(c)
		}
	}
	call := func(c *callNode) {
		some(c.x)
		all(c.args)
		for _, k := range c.kwargs {
			visit(k.value)
		}
		some(c.star)
		some(c.starStar)
	}
	switch n := n.(type) {
	case *tupleNode:
		all(n.items)
	case *listNode:
		all(n.items)
	case *dictNode:
		for i := range n.keys {
			visit(n.keys[i])
			visit(n.values[i])
		}
	case *condNode:
		visit(n.test)
		visit(n.then)
		some(n.otherwise)
	case *binaryNode:
		visit(n.left)
		visit(n.right)
	case *unaryNode:
		visit(n.x)
	case *compareNode:
		visit(n.first)
		all(n.rest)
	case *concatNode:
		all(n.items)
	case *attrNode:
		visit(n.x)
	case *itemNode:
		visit(n.x)
		visit(n.index)
	case *sliceNode:
		some(n.start)
		some(n.stop)
		some(n.step)
	case *callNode:
		call(n)
	case *filterNode:
		call(&n.callNode)
	case *testNode:
		call(&n.callNode)
	default:
		visitStatementChildren(n, visit, all, some)
	}
}

func visitStatementChildren(n node, visit func(node), all func([]node), some func(node)) {
	switch n := n.(type) {
	case *outputNode:
		all(n.items)
	case *forNode:
		visit(n.target)
		visit(n.iter)
		all(n.body)
		all(n.otherwise)
		some(n.test)
	case *ifNode:
		visit(n.test)
		all(n.body)
		for _, e := range n.elifs {
			visit(e)
		}
		all(n.otherwise)
	case *macroNode:
		for _, a := range n.args {
			visit(a)
		}
		all(n.defaults)
		all(n.body)
	case *callBlockNode:
		if n.call != nil {
			visit(n.call)
		}
		visit(n.macro)
	case *filterBlockNode:
		all(n.body)
		visit(n.filter)
	case *withNode:
		all(n.targets)
		all(n.values)
		all(n.body)
	case *assignNode:
		visit(n.target)
		visit(n.value)
	case *assignBlockNode:
		visit(n.target)
		if n.filter != nil {
			visit(n.filter)
		}
		all(n.body)
	case *scopeNode:
		visit(n.option)
		all(n.body)
	}
}
