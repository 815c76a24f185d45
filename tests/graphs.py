"""What is in a TensorFlow graph: for tests of what a step does and costs."""

CALLS = ("PartitionedCall", "StatefulPartitionedCall")


class Branch:
    """Everything that a function of a graph runs, functions it calls included.

    Attributes:
      nodes: `NodeDef`s of operations.
      compiled: names of the functions among them that XLA compiles.
    """

    def __init__(self, functions, name):
        self.nodes, self.compiled = [], []
        pending, seen = [name], set()
        while pending:
            name = pending.pop()
            if name in seen:
                continue
            seen.add(name)
            function = functions[name]
            if function.attr["_XlaMustCompile"].b:
                self.compiled.append(name)
            self.nodes += function.node_def
            for node in function.node_def:
                for value in node.attr.values():
                    called = [
                        value.func.name,
                        *(f.name for f in value.list.func),
                    ]
                    pending += filter(None, called)

    @property
    def kinds(self):
        """Names of the operations."""
        return {node.op for node in self.nodes}

    @property
    def writes(self):
        """Operations that write variables, in no order."""
        return sorted(n.op for n in self.nodes if n.op.startswith("Assign"))


def branches(graph):
    """`(then, else)` of the one condition in the graph itself."""
    library = graph.as_graph_def().library.function
    functions = {f.signature.name: f for f in library}
    (condition,) = [
        op for op in graph.get_operations() if op.type in ("If", "StatelessIf")
    ]
    return tuple(
        Branch(functions, condition.get_attr(f"{which}_branch").name)
        for which in ("then", "else")
    )


def assert_only_adds(graph, count):
    """The condition's accumulating branch adds `count` times, no more.

    The other branch calls what XLA has compiled.
    """
    update, accumulate = branches(graph)
    assert accumulate.writes == ["AssignAddVariableOp"] * count
    assert not accumulate.kinds & {*CALLS, "AddN"}, accumulate.kinds
    assert not [k for k in accumulate.kinds if "Collective" in k]
    assert update.compiled
