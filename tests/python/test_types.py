"""The stubs of the package: they name what the extension has, and a program that uses them type-checks."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
from ttpu import _ttpu

ROOT = pathlib.Path(__file__).resolve().parents[2]

RIGHT = '''
import pathlib
import ttpu

model = ttpu.AutoModelForTPU.from_pretrained(pathlib.Path("model.gguf"), dtype="f32", max_model_len=64)
answer: ttpu.Generation = model.generate([{"role": "user", "content": "Hello"}], stop=["."])
ids: list[int] = model.generate([1, 2, 3]).token_ids
for piece in model.generate("Once", stream=True):
    text: str = piece
'''
WRONG = {
    'import ttpu\nttpu.AutoModelForTPU.from_pretrained("m", backend="torch_xla")\n': "backend",
    'import ttpu\nttpu.AutoModelForTPU.from_pretrained("m").generate("Hello").txt\n': "txt",
    'import ttpu\nx: int = ttpu.AutoModelForTPU.from_pretrained("m").generate("Hello", stream=True)\n': "TextStream",
}


def mypy(*options):
    return subprocess.run([sys.executable, "-m", "mypy", *options], cwd=ROOT, capture_output=True, text=True,
                          check=False)


def check(tmp_path, text):
    file = tmp_path / "program.py"
    file.write_text(text)
    return mypy("--strict", "--cache-dir", str(tmp_path / "cache"), str(file))


def stub_classes():
    """The members of each class of the stubs, by name; of overloads the first."""
    tree = ast.parse((ROOT / "python/ttpu/_ttpu.pyi").read_text())
    for item in (item for item in tree.body if isinstance(item, ast.ClassDef)):
        members = {}
        for member in item.body:
            if isinstance(member, ast.FunctionDef):
                members.setdefault(member.name, member)
            elif isinstance(member, ast.AnnAssign):
                members[member.target.id] = member
        yield item.name, members


def functions_with_keywords():
    return [pytest.param(name, member, function, id=f"{name}.{member}") for name, members in stub_classes()
            for member, function in members.items()
            if isinstance(function, ast.FunctionDef) and function.args.kwonlyargs]


def arguments(function):
    """Names and defaults of the keyword arguments, as text."""
    return {argument.arg: default and ast.unparse(default).replace("()", "[]")
            for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults)}


def runtime_definition(function):
    """The extension's own signature, as nanobind keeps it."""
    ((text, _, defaults),) = function.__nb_signature__
    for index, default in enumerate(defaults or ()):
        text = re.sub(rf"\\{index}(?=[,)])", lambda _, default=default: repr(default), text)
    return ast.parse(f"{text}: ...").body[0]


def public(names):
    return {name for name in names if not name.startswith("__")}


def test_the_stubs_name_what_the_extension_has():
    stubs = dict(stub_classes())
    assert set(stubs) == public(vars(_ttpu))
    for name, members in stubs.items():
        found = getattr(_ttpu, name)
        if not issubclass(found, Exception):  # its attributes belong to the instances
            assert public(members) == public(vars(found)), name
        assert all(hasattr(found, member) for member in members if member.startswith("__"))


@pytest.mark.parametrize("owner, name, stub", functions_with_keywords())
def test_the_stubs_have_the_arguments_and_defaults_of_the_extension(owner, name, stub):
    found = runtime_definition(getattr(getattr(_ttpu, owner), name))
    assert arguments(stub) == arguments(found)
    positional = [argument.arg for argument in stub.args.args]
    assert positional == [argument.arg for argument in found.args.args]


def test_the_example_and_a_right_program_check(tmp_path):
    result = check(tmp_path, RIGHT)
    assert result.returncode == 0, result.stdout
    result = mypy("--strict", "--cache-dir", str(tmp_path / "cache"), "examples/chat.py")
    assert result.returncode == 0, result.stdout


@pytest.mark.parametrize("text, word", WRONG.items())
def test_a_wrong_program_does_not(tmp_path, text, word):
    result = check(tmp_path, text)
    assert result.returncode == 1
    assert word in result.stdout
