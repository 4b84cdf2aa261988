"""Structured output, tools and thoughts, through OpenAI's own client, with SmolLM2."""

import concurrent.futures
import json
import re
import time
from typing import Literal

import openai
import pydantic
import pytest

MODEL = "smollm2"
MESSAGES = [{"role": "user", "content": "Describe a cat."}]


class Animal(pydantic.BaseModel):
    kind: Literal["cat", "dog"]
    legs: int
    sound: str


TOOLS = [{"type": "function", "function": {
    "name": name, "description": "A tool", "parameters": {
        "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
        "additionalProperties": False}}} for name in ("get_weather", "get_time")]


def chat(client, **options):
    return client.chat.completions.create(
        model=MODEL, messages=MESSAGES, **{"temperature": 0, "max_tokens": 100, **options})


def test_parse_gives_the_object(client):
    answer = client.beta.chat.completions.parse(model=MODEL, messages=MESSAGES, temperature=0, max_tokens=100,
                                                response_format=Animal)
    assert answer.choices[0].message.parsed.kind in ("cat", "dog")
    assert answer.choices[0].finish_reason == "stop"
    same = client.responses.parse(model=MODEL, input="Describe a cat.", temperature=0, max_output_tokens=100,
                                  text_format=Animal)
    assert same.output_parsed == answer.choices[0].message.parsed


def test_every_kind_leads_the_answer_streamed_or_not(client):
    kinds = [({"response_format": {"type": "json_object"}}, lambda text: isinstance(json.loads(text), dict)),
             ({"extra_body": {"guided_json": Animal.model_json_schema()}}, Animal.model_validate_json),
             ({"extra_body": {"guided_regex": "[a-f]{3}[0-9]"}}, lambda text: re.fullmatch("[a-f]{3}[0-9]", text)),
             ({"extra_body": {"guided_choice": ["yes", "no"]}}, lambda text: text in ("yes", "no")),
             ({"extra_body": {"guided_grammar": 'start: "a" "b"{2,3}'}}, lambda text: text in ("abb", "abbb")),
             ({"extra_body": {"structured_outputs": {"regex": "x{4}"}}}, lambda text: text == "xxxx")]
    for options, holds in kinds:
        answer = chat(client, **options).choices[0]
        if "response_format" not in options:  # any object may be longer than the answer
            assert answer.finish_reason == "stop"
            assert holds(answer.message.content), answer.message.content
        chunks = chat(client, stream=True, **options)
        assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == answer.message.content
    text = client.completions.create(model=MODEL, prompt="The answer:", temperature=0,
                                     extra_body={"guided_choice": [" yes", " no"]}).choices[0].text
    assert text in (" yes", " no")


@pytest.mark.parametrize("choice, names", [
    ("required", ("get_weather", "get_time")),
    ({"type": "function", "function": {"name": "get_time"}}, ("get_time",))])
def test_a_forced_call_comes_streamed_or_not(client, choice, names):
    options = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False}
    answer = chat(client, **options).choices[0]
    [call] = answer.message.tool_calls
    assert answer.finish_reason == "tool_calls" and not answer.message.content
    assert call.function.name in names
    assert json.loads(call.function.arguments)["city"] in ("Paris", "Rome")
    deltas = [chunk.choices[0].delta for chunk in chat(client, stream=True, **options)]
    [streamed] = [one for delta in deltas for one in delta.tool_calls or []]
    assert streamed.index == 0 and streamed.id
    assert streamed.function.name == call.function.name
    assert streamed.function.arguments == call.function.arguments


def test_a_conversation_goes_on_with_what_the_tool_said(client):
    call = chat(client, tools=TOOLS, tool_choice="required", parallel_tool_calls=False).choices[0].message
    answer = client.chat.completions.create(model=MODEL, max_tokens=8, temperature=0, tools=TOOLS, messages=[
        *MESSAGES, call.model_dump(exclude_none=True),
        {"role": "tool", "tool_call_id": call.tool_calls[0].id, "content": "Sunny."}])
    assert answer.choices[0].message.content


def test_calls_are_read_by_the_parser_and_thoughts_by_the_other(serve):
    server = serve("--tool-call-parser", "hermes", "--enable-auto-tool-choice", "--reasoning-parser", "qwen3",
                   "--served-model-name", MODEL)
    client = server.client()
    # What a model that was trained for it says of its own, here by a grammar.
    said = '<tool_call>{"name": "get_time", "arguments": {"city": "Rome"}}</tool_call>'
    thought = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=100,
        extra_body={"guided_grammar": 'start: "<think>" "Hm." "</think>" "\\n\\n" "Yes."'}).choices[0].message
    assert (thought.reasoning_content, thought.content) == ("Hm.", "Yes.")
    both = client.chat.completions.create(
        model=MODEL, messages=MESSAGES, max_tokens=100, stream=True, tools=TOOLS,
        extra_body={"guided_grammar": f"start: {json.dumps('<think>a</think>Now.' + said)}"})
    deltas = [chunk.choices[0].delta for chunk in both]
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "a"
    assert "".join(delta.content or "" for delta in deltas) == "Now."
    [call] = [one.function for delta in deltas for one in delta.tool_calls or []]
    assert (call.name, json.loads(call.arguments)) == ("get_time", {"city": "Rome"})
    schema = client.chat.completions.create(  # the grammar of a model that may think first
        model=MODEL, messages=MESSAGES, temperature=0, max_tokens=40, extra_body={"guided_choice": ["yes", "no"]})
    assert schema.choices[0].message.content in ("yes", "no", "")


@pytest.mark.parametrize("fields", [
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "wrong"}}}},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "x"}}},
    {"response_format": {"type": "xml"}}, {"response_format": 3},
    {"guided_json": "{"}, {"guided_json": 3}, {"guided_json": {"$ref": "#/nothing"}}, {"guided_regex": "("},
    {"guided_choice": []}, {"guided_choice": [""]}, {"guided_grammar": "start: nothing"},
    {"guided_regex": "a", "guided_choice": ["b"]}, {"structured_outputs": {}},
    {"structured_outputs": {"jsno": {}}}, {"guided_json": {"type": "integer", "minimum": 2, "maximum": 1}},
    {"tools": [{"a": 1}]}, {"tools": TOOLS, "tool_choice": "some"}, {"tool_choice": "required"},
    {"tools": TOOLS, "tool_choice": {"type": "function", "function": {"name": "other"}}},
    {"guided_choice": ["a"], "bad_words": ["a"]},
    {"guided_regex": "(a?){5000}a{5000}"}, {"guided_grammar": "(" * 100_000},
])
def test_what_cannot_be_is_a_400(server, fields):
    response = server.post("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": 4, **fields})
    assert response.status_code == 400, response.text
    assert response.json()["error"]["message"]


def test_others_go_on_while_a_grammar_explodes(server, client):
    with concurrent.futures.ThreadPoolExecutor() as pool:
        start = time.monotonic()
        running = pool.submit(lambda: [(time.monotonic(), chunk) for chunk in chat(client, stream=True)])
        bombs = [pool.submit(server.post, "/v1/chat/completions", {
            "messages": MESSAGES, "guided_regex": f"(a?){{{5000 + i}}}a{{5000}}"}) for i in range(4)]
        assert [bomb.result().status_code for bomb in bombs] == [400] * 4
        assert len(running.result()) > 2 and time.monotonic() - start < 60
    with pytest.raises(openai.BadRequestError):
        chat(client, extra_body={"guided_regex": "["})
