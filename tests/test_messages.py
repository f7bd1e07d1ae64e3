"""Every message that a user can see is worded in `ugmm_ppl.checks`, or in the `checks.py` of circuits or latent."""

import ast
import builtins
from pathlib import Path

import pytest

import ugmm_ppl

ROOT = Path(ugmm_ppl.__file__).parent

PROTOCOL = {"AttributeError": ("__getattr__", "__delattr__", "__setattr__")}
"""Exceptions that methods of Python's protocols raise with a name alone, as Python itself asks them to."""

ALLOWED = {
    "def inverse(self): raise NotImplementedError": "an abstract method has no words",
    "def __getattr__(self, name): raise AttributeError(name)": "a protocol of Python, whose answer is the name",
    "raise typer.Exit(2) from error": "it ends the command, which has said what is wrong",
    "try: run()\nexcept ValueError: raise": "it passes on what has its words",
    "try: run()\nexcept ValueError as error: failure = error\nraise failure": "it passes on what has its words",
    "raise checks.no_kernel('native', problem)": "the words are there",
    "raise checks.NonFiniteError(*failed, fit)": "the words are there",
    "warnings.warn(checks.slow_kernel('the processor'), stacklevel=2)": "the words are there",
    "def say(warning): warnings.warn(warning, RuntimeWarning, stacklevel=2)": "the words are those of the caller",
}
"""What may stand outside the checks, and why."""

REFUSED = (
    "raise ValueError('x must be finite.')",
    "raise TypeError(f'x must be finite; got {x}.') from error",
    "raise NotImplementedError('only for circuits')",
    "raise FileNotFoundError(path)",
    "raise ImportError(name=module)",
    "def wrong(): return MemoryError('no memory')",
    "error = KeyError(name)\nraise error",
    "def inverse(self): raise AttributeError(name)",
    "def __getattr__(self, name): raise AttributeError(f'no attribute {name}')",
    "def __getattr__(self, name): raise ValueError(name)",
    "class Odd(ValueError): pass",
    "assert x, 'x must be there'",
    "warnings.warn('slow')",
    "warnings.warn(f'{x} is slow', stacklevel=2)",
    "warnings.warn('slow: ' + reason)",
    "warnings.warn('slow: {}'.format(reason))",
    "warnings.warn(message='slow')",
    "warnings.warn('slow' if slow else other)",
    "warn(UserWarning('slow'))",
)
"""What may not."""


def is_exception(node):
    """Whether a node is the name of a built-in exception or warning."""
    found = getattr(builtins, node.id, None) if isinstance(node, ast.Name) else None
    return isinstance(found, type) and issubclass(found, BaseException)


def has_words(node):
    """Whether the value of a node is text that is written there."""
    if isinstance(node, ast.Constant):
        return isinstance(node.value, str)
    if isinstance(node, ast.BinOp):
        return has_words(node.left) or has_words(node.right)
    if isinstance(node, ast.IfExp):
        return has_words(node.body) or has_words(node.orelse)
    if isinstance(node, ast.Call):
        return isinstance(node.func, ast.Attribute) and has_words(node.func.value)
    return isinstance(node, ast.JoinedStr)


def of_protocol(call, function):
    """Whether an exception is what a method of a protocol raises."""
    return function in PROTOCOL.get(call.func.id, ()) and [type(a) for a in (*call.args, *call.keywords)] == [ast.Name]


def worded(node, function=""):
    """Lines on which a user's message is worded; `function` is the one around the node."""
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        function = node.name
    elif isinstance(node, ast.Call):
        given = [*node.args, *(keyword.value for keyword in node.keywords)]
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if (is_exception(node.func) and given and not of_protocol(node, function)) or (
            name in ("warn", "warn_explicit") and any(map(has_words, given))
        ):
            yield node.lineno
    elif (isinstance(node, ast.ClassDef) and any(map(is_exception, node.bases))) or (
        isinstance(node, ast.Assert) and node.msg is not None
    ):
        yield node.lineno
    for child in ast.iter_child_nodes(node):
        yield from worded(child, function)


def test_messages_are_worded_in_the_checks():
    found = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in sorted(ROOT.rglob("*.py"))
        if path.name != "checks.py" and "checks" not in path.relative_to(ROOT).parts
        for line in worded(ast.parse(path.read_text()))
    ]
    assert not found, "messages that are not worded in ugmm_ppl/checks, or in the checks.py of their package"


@pytest.mark.parametrize("code", ALLOWED)
def test_what_has_no_words_is_allowed(code):
    assert not list(worded(ast.parse(code)))


@pytest.mark.parametrize("code", REFUSED)
def test_words_are_found(code):
    assert list(worded(ast.parse(code)))
