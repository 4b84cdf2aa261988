"""Makes tests/fixtures/chat_templates/*.json and tests/fixtures/tokenizers/*: what transformers renders and encodes.

    pip install transformers==5.23.0 jinja2==3.1.6 gguf
    python tools/make_template_fixtures.py --gguf SmolLM2-135M-Instruct.Q4_1.gguf

Each fixture holds cases {template, messages, tools, documents, options, variables} and `expected`, or `error` where
transformers refuses. The template strings in chat_template_cases.py were written for these tests.
"""

import argparse
import datetime
import json
from pathlib import Path

import jinja2
import transformers
from transformers.utils import chat_template_utils

import chat_template_cases as given
import tokenizer_cases

ROOT = Path(__file__).resolve().parent.parent / "tests" / "fixtures"
NOW = datetime.datetime(2024, 7, 26, 15, 4, 5)
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


class FixedClock(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return NOW


def render(case):
    options = dict(case.get("options", {}))
    try:
        rendered, _ = chat_template_utils.render_jinja_template(
            conversations=[json.loads(json.dumps(case["messages"]))],
            tools=case.get("tools"),
            documents=case.get("documents"),
            chat_template=case["template"],
            **options,
            **case.get("variables", {}),
        )
        return {"expected": rendered[0]}
    except jinja2.exceptions.TemplateSyntaxError as error:
        return {"error": f"line {error.lineno}"}
    except jinja2.exceptions.TemplateError as error:
        ours = type(error) is jinja2.exceptions.TemplateError  # by raise_exception
        return {"error": str(error) if ours else ""}
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError):
        return {"error": ""}


def case(template, messages, tools=None, documents=None, variables=None, **options):
    return {"template": template, "messages": messages, "tools": tools, "documents": documents,
            "variables": {**TOKENS, **(variables or {})}, "options": options}


def conversations(template, tools=None, **variables):
    """A template over the usual conversations, with and without a generation prompt and tools."""
    usual = [given.PLAIN, given.TURNS, given.UNICODE, given.TOOL_TURNS, given.REASONING, given.BLOCKS]
    made = [case(template, m, variables=variables, add_generation_prompt=g) for m in usual for g in (False, True)]
    if tools:
        made += [case(template, m, tools, variables=variables, add_generation_prompt=True) for m in usual]
    return made


def expressions(texts):
    template = lambda text: "{{ " + text.replace("\n", "\\n").replace("\t", "\\t") + " }}"
    return [case(template(text), given.PLAIN, variables=given.VALUES) for text in texts]


def smollm2_template(path):
    from gguf import GGUFReader

    field = GGUFReader(path).fields["tokenizer.chat_template"]
    return bytes(field.parts[field.data[0]]).decode()


def continued():
    strip = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}{% endfor %}"
    keep = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</s>{% endfor %}"
    think = "{% for m in messages %}[{{ m.role }}]<think>{{ m.thinking }}{{ m.content }}{% endfor %}"
    talk = given.PLAIN + [{"role": "assistant", "content": "It is  "}]
    reason = given.PLAIN + [{"role": "assistant", "reasoning": "because", "content": ""}]
    blocks = "{% for m in messages %}{% for b in m.content %}{{ b.text }}{% endfor %}{% endfor %}"
    return [
        case(strip, talk, continue_final_message=True),
        case(keep, talk, continue_final_message=True),
        case(given.CHATML, talk, continue_final_message=True),
        case(think, reason, continue_final_message="reasoning"),
        case(think, reason),
        case(blocks, given.BLOCKS[1:], continue_final_message=True),
        case("constant content", talk, continue_final_message=True),
        case(keep, [{"role": "assistant", "content": None}], continue_final_message=True),
    ]


def errors():
    wrong = ["{% for m in messages %}", "a\n{{ }}", "a\nb\n{% endif %}", "{{ 'open }}", "{% unknown %}", "{{ 1 + }}", "x\n{% if %}{% endif %}",
             "{{ raise_exception('No <system> \"role\" here: é') }}", "{{ missing.attribute }}", "{{ none.x.y }}", "{{ 'a' + 1 }}", "{{ messages.append(1) }}",
             "{{ missing() }}", "{{ 'a' | nofilter }}", "{{ 1 / 0 }}", "{{ missing | tojson }}", "{{ range(10) | tojson(unknown=1) }}"]
    return [case(text, given.PLAIN) for text in wrong]


def fixtures(gguf):
    smollm2 = smollm2_template(gguf)
    document = [{"title": "T & Co", "text": "Body\n<x>"}]
    rag = "{% for d in documents or [] %}{{ loop.index0 }}: {{ d.title }} {{ d.text }}\n{% endfor %}{% if not documents %}none{% endif %}{{ messages[0].content }}"
    yield "smollm2", conversations(smollm2)
    yield "chatml", conversations(given.CHATML) + [case(given.CHATML.replace("\n", "\r\n"), given.TURNS)]
    yield "llama3", conversations(given.LLAMA3, given.TOOLS) + [
        case(given.LLAMA3, given.TURNS, given.TOOLS, variables={"tools_in_user_message": False, "date_string": "1 Jan"}),
        case(given.LLAMA3, given.TOOL_TURNS, variables={"builtin_tools": ["get_weather"]}),
        case(given.LLAMA3, given.TURNS[:1], given.TOOLS)]
    yield "qwen", conversations(given.QWEN, given.TOOLS, enable_thinking=False)
    yield "mistral", conversations(given.MISTRAL, given.TOOLS) + [case(given.MISTRAL, given.PLAIN + given.PLAIN)]
    yield "gemma", conversations(given.GEMMA)
    yield "phi", conversations(given.PHI) + [case(given.PHI, [{"role": "system", "content": "s", "tools": "[]"}])]
    yield "deepseek", conversations(given.DEEPSEEK)
    yield "hermes", [case(given.HERMES, m, given.TOOLS, add_generation_prompt=True) for m in (given.PLAIN, given.UNICODE, given.TOOL_TURNS)]
    yield "typescript", [case(given.TYPESCRIPT, m, given.TOOLS, variables=v) for m in (given.PLAIN, given.TURNS, given.TOOL_TURNS, given.REASONING)
                         for v in ({}, {"reasoning_effort": "high"})] + [case(given.TYPESCRIPT, [{"role": "tool", "content": "x"}])]
    yield "generation", [case(given.GENERATION, m, add_generation_prompt=g) for m in (given.PLAIN, given.TURNS) for g in (False, True)]
    yield "loops", [case(given.LOOPS, m) for m in (given.PLAIN, given.TURNS, given.REASONING, [])]
    yield "scopes", [case(given.BLOCKS_AND_SCOPES, given.PLAIN), case(given.BLOCKS_AND_SCOPES.replace("\n", "\r\n"), given.TURNS)]
    yield "documents", [case(rag, given.PLAIN, documents=document), case(rag, given.PLAIN)]
    yield "continue", continued()
    yield "errors", errors()
    for name, texts in given.EXPRESSIONS.items():
        yield f"expressions_{name}", expressions(texts)


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--gguf", required=True, help="the SmolLM2-135M-Instruct GGUF file")
    arguments = parser.parse_args()
    assert transformers.__version__ == "5.23.0", transformers.__version__
    chat_template_utils.datetime = FixedClock
    folder = ROOT / "chat_templates"
    folder.mkdir(parents=True, exist_ok=True)
    for name, cases in fixtures(arguments.gguf):
        templates = list(dict.fromkeys(c["template"] for c in cases))
        done = [{**c, "template": templates.index(c["template"]), **render(c)} for c in cases]
        shared = done[0]["variables"] if all(c["variables"] == done[0]["variables"] for c in done) else {}
        for c in done:
            if shared:
                del c["variables"]
            for key in [k for k, v in c.items() if v is None or v == {}]:
                del c[key]
        content = {"templates": templates, "variables": shared, "cases": done}
        (folder / f"{name}.json").write_text(json.dumps(content, ensure_ascii=False, indent=1) + "\n")
        print(f"{name}: {len(done)} cases, {sum('error' in c for c in done)} of them refused")
    tokenizer_cases.write(ROOT / "tokenizers")


if __name__ == "__main__":
    main()
