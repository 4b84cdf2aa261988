"""Clients that know nothing of TTPU: curl and LangChain, as they come."""

import json
import subprocess

from langchain_openai import ChatOpenAI, OpenAI


def curl(*words):
    return subprocess.run(["curl", "--silent", "--show-error", "--fail-with-body", "--no-buffer", *words],
                          capture_output=True, text=True, check=True, timeout=120).stdout


def test_curl_gets_whole_and_streamed_answers(server):
    body = {"model": "smollm2", "prompt": "Once upon a time", "max_tokens": 8, "temperature": 0}
    ask = [server.url + "/v1/completions", "-H", "content-type: application/json"]
    whole = json.loads(curl(*ask, "-d", json.dumps(body)))["choices"][0]["text"]
    lines = curl(*ask, "-d", json.dumps(body | {"stream": True})).splitlines()
    assert lines[-2:] == ["data: [DONE]", ""]
    assert whole == "".join(json.loads(line[6:])["choices"][0]["text"] for line in lines if line.startswith("data: {"))
    assert json.loads(curl(server.url + "/v1/models"))["data"][0]["id"] == "smollm2"
    # A body that curl announces with `Expect: 100-continue`.
    large = json.dumps(body | {"prompt": "word " * 1000})
    assert json.loads(curl(*ask, "-H", "Expect: 100-continue", "-d", large))["usage"]["prompt_tokens"] > 900


def test_langchain_chats_and_streams(server):
    options = {"base_url": server.url + "/v1", "api_key": "none", "model": "smollm2", "temperature": 0, "max_retries": 0}
    chat = ChatOpenAI(max_tokens=12, **options)
    question = [("system", "Answer in one word."), ("human", "What is the capital of France?")]
    answer = chat.invoke(question)
    assert "Paris" in answer.content
    assert answer.usage_metadata["output_tokens"] <= 12
    pieces = list(chat.stream(question))
    assert len(pieces) > 2 and "".join(piece.content for piece in pieces) == answer.content
    both = chat.batch([question, question])
    assert [one.content for one in both] == [answer.content] * 2
    text = OpenAI(max_tokens=5, **options).invoke("Once upon a time")
    assert text
