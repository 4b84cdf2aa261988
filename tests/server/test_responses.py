"""/v1/responses, through OpenAI's own client."""

import json

import pytest

QUESTION = "What is the capital of France?"


TOOLS = [{"type": "function", "name": name, "description": "A tool", "strict": True, "parameters": {
    "type": "object", "properties": {"city": {"enum": ["Paris", "Rome"]}}, "required": ["city"],
    "additionalProperties": False}} for name in ("get_weather", "get_time")]


def ask(client, text=QUESTION, **options):
    return client.responses.create(model="smollm2", input=text,
                                   **{"temperature": 0, "max_output_tokens": 24, **options})


def chat(client, messages):
    return client.chat.completions.create(model="smollm2", messages=messages, temperature=0,
                                          max_tokens=24)


def test_a_response_says_what_a_chat_says(client):
    answer = ask(client)
    same = chat(client, [{"role": "user", "content": QUESTION}])
    assert answer.output_text == same.choices[0].message.content
    assert answer.status == "completed"
    assert answer.usage.input_tokens == same.usage.prompt_tokens
    assert answer.usage.output_tokens == same.usage.completion_tokens


def test_instructions_and_earlier_turns_are_the_conversation(client):
    turns = [{"role": "user", "content": [{"type": "input_text", "text": "Say a number."}]},
             {"type": "message", "role": "assistant",
              "content": [{"type": "output_text", "text": "Seven."}]},
             {"role": "user", "content": "And the next one?"}]
    answer = ask(client, turns, instructions="You can count.")
    same = chat(client, [{"role": "system", "content": "You can count."},
                         {"role": "user", "content": "Say a number."},
                         {"role": "assistant", "content": "Seven."},
                         {"role": "user", "content": "And the next one?"}])
    assert answer.output_text == same.choices[0].message.content
    assert answer.usage.input_tokens == same.usage.prompt_tokens


def test_the_events_of_a_stream_make_up_the_response(client):
    events = list(ask(client, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    types = [event.type for event in events]
    assert types[:4] == ["response.created", "response.in_progress", "response.output_item.added",
                         "response.content_part.added"]
    assert types[-4:] == ["response.output_text.done", "response.content_part.done",
                          "response.output_item.done", "response.completed"]
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == events[-1].response.output_text == ask(client).output_text


def test_an_answer_that_was_cut_is_incomplete(client):
    answer = ask(client, max_output_tokens=2)
    assert answer.status == "incomplete"
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert list(ask(client, max_output_tokens=2, stream=True))[-1].type == "response.incomplete"


@pytest.mark.parametrize("choice, names", [
    ("required", ("get_weather", "get_time")), ({"type": "function", "name": "get_time"}, ("get_time",))])
def test_a_forced_call_is_an_item_streamed_or_not(client, choice, names):
    options = {"tools": TOOLS, "tool_choice": choice, "parallel_tool_calls": False, "max_output_tokens": 100}
    answer = ask(client, **options)
    [call] = answer.output
    assert (call.type, call.status, answer.status) == ("function_call", "completed", "completed")
    assert call.name in names and json.loads(call.arguments)["city"] in ("Paris", "Rome")
    assert (answer.tool_choice if isinstance(choice, str) else answer.tool_choice.name) in (choice, "get_time")
    assert [tool.name for tool in answer.tools] == ["get_weather", "get_time"]
    events = list(ask(client, stream=True, **options))
    assert [event.type for event in events] == [
        "response.created", "response.in_progress", "response.output_item.added", "response.function_call_arguments.delta",
        "response.function_call_arguments.done", "response.output_item.done", "response.completed"]
    [streamed] = events[-1].response.output
    assert (streamed.name, streamed.arguments) == (call.name, call.arguments)
    assert events[2].item.name == call.name and events[3].delta == events[4].arguments == call.arguments
    assert streamed.id == events[2].item.id == events[3].item_id and streamed.call_id.startswith("call_")


def test_a_conversation_goes_on_with_what_the_tool_said(client):
    question = [{"role": "user", "content": QUESTION}]
    called = ask(client, question, tools=TOOLS, tool_choice="required", parallel_tool_calls=False, max_output_tokens=100)
    [call] = called.output
    answer = ask(client, [*question, *called.output,
                          {"type": "function_call_output", "call_id": call.call_id, "output": "Sunny."}], tools=TOOLS)
    same = client.chat.completions.create(
        model="smollm2", temperature=0, max_tokens=24, messages=[
            *question, {"role": "assistant", "tool_calls": [{"id": call.call_id, "type": "function", "function": {
                "name": call.name, "arguments": call.arguments}}]},
            {"role": "tool", "tool_call_id": call.call_id, "content": "Sunny."}],
        tools=[{"type": "function", "function": {k: v for k, v in tool.items() if k != "type"}} for tool in TOOLS])
    assert answer.output_text == same.choices[0].message.content
    assert answer.usage.input_tokens == same.usage.prompt_tokens


@pytest.mark.parametrize("field, value", [
    ("input", 5), ("input", []), ("input", [{"type": "function_call"}]), ("previous_response_id", "x"),
    ("max_output_tokens", 0), ("background", True), ("tools", [{"type": "web_search"}]),
    ("text", {"format": {"type": "xml"}}), ("n", 2), ("tools", [{"type": "function"}]), ("tool_choice", "required"),
    ("tool_choice", {"type": "function"}), ("tool_choice", 3), ("parallel_tool_calls", 1),
    ("input", [{"type": "function_call_output", "output": "x"}]), ("input", [3]),
    ("input", [{"type": "function_call", "call_id": "a", "name": "f", "arguments": "{"}]),
])
def test_what_is_not_offered_is_refused(server, field, value):
    response = server.post("/v1/responses", {"input": "Hi", field: value})
    assert response.status_code == 400
    param = response.json()["error"]["param"]
    assert param == ("text.format.type" if field == "text" else field)
