package dstack

// NodeSelector says on which nodes of a cluster an attempt may run, where the cluster's scheduler
// chooses the node: on those that satisfy every requirement of at least one term. Empty: on every node.
type NodeSelector []NodeTerm

// NodeTerm is requirements that one node satisfies together.
type NodeTerm []NodeRequirement

// NodeRequirement is what one label of a node must be.
type NodeRequirement struct {
	Label    string
	Operator NodeOperator
	Values   []string
}

// NodeOperator says how a label is compared with the values. The texts are those of Kubernetes.
type NodeOperator string

// Every operator of a NodeRequirement.
const (
	NodeIn          NodeOperator = "In"           // the label has one of the values
	NodeNotIn       NodeOperator = "NotIn"        // the node has no such label, or another value
	NodeGreaterThan NodeOperator = "Gt"           // the label is a larger integer than the only value
	NodeLessThan    NodeOperator = "Lt"           // the label is a smaller integer than the only value
	NodeLacks       NodeOperator = "DoesNotExist" // the node has no such label; there are no values
)
