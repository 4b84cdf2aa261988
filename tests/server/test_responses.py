"""/v1/responses, through OpenAI's own client."""

import pytest

QUESTION = "What is the capital of France?"


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


@pytest.mark.parametrize("field, value", [
    ("input", 5), ("input", []), ("input", [{"type": "function_call"}]), ("previous_response_id", "x"),
    ("max_output_tokens", 0), ("background", True), ("tools", [{"type": "web_search"}]),
    ("text", {"format": {"type": "xml"}}), ("n", 2),
])
def test_what_is_not_offered_is_refused(server, field, value):
    response = server.post("/v1/responses", {"input": "Hi", field: value})
    assert response.status_code == 400
    param = response.json()["error"]["param"]
    assert param == ("text.format.type" if field == "text" else field)
