"""The stubs of the package: they name what the extension has, and a program that uses them type-checks."""

import ast
import pathlib
import re
import subprocess
import sys

import pytest
import ttpu

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


def stub_functions():
    """Each function of the stubs as (class, name, its first definition)."""
    tree = ast.parse((ROOT / "python/ttpu/_ttpu.pyi").read_text())
    for item in (item for item in tree.body if isinstance(item, ast.ClassDef)):
        seen = set()
        for function in item.body:
            if isinstance(function, ast.FunctionDef) and function.name not in seen:
                seen.add(function.name)
                yield item.name, function.name, function


def arguments(function):
    """Names and defaults of the keyword arguments, as text."""
    return {argument.arg: ast.unparse(default).replace("()", "[]")
            for argument, default in zip(function.args.kwonlyargs, function.args.kw_defaults)}


def runtime_definition(function):
    """The extension's own signature, as nanobind keeps it."""
    ((text, _, defaults),) = function.__nb_signature__
    for index, default in enumerate(defaults or ()):
        text = re.sub(rf"\\{index}(?=[,)])", lambda _, default=default: repr(default), text)
    return ast.parse(f"{text}: ...").body[0]


def test_the_stubs_name_what_the_package_has():
    tree = ast.parse((ROOT / "python/ttpu/_ttpu.pyi").read_text())
    classes = {item.name for item in tree.body if isinstance(item, ast.ClassDef)}
    assert classes | {"__version__"} == set(ttpu.__all__)
    for name in classes:
        public = {member for member in vars(getattr(ttpu, name)) if not member.startswith("_")}
        stubbed = {function for owner, function, _ in stub_functions() if owner == name}
        assert public == {function for function in stubbed if not function.startswith("_")}
        assert all(hasattr(getattr(ttpu, name), function) for function in stubbed)


@pytest.mark.parametrize("owner, name, stub", [
    pytest.param(*item, id=".".join(item[:2])) for item in stub_functions() if item[2].args.kwonlyargs])
def test_the_stubs_have_the_arguments_and_defaults_of_the_extension(owner, name, stub):
    found = runtime_definition(getattr(getattr(ttpu, owner), name))
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
