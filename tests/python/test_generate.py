"""The package ttpu on a real model: SmolLM2 135M, its GGUF file as the set-up fetches it."""

import json
import pathlib
import signal
import threading
import time

import pytest
import ttpu

FIXTURES = pathlib.Path(__file__).parents[1] / "fixtures"
MESSAGES = [{"role": "user", "content": "What is the capital of France?"}]


@pytest.fixture(scope="session")
def model(smollm2):
    return ttpu.AutoModelForTPU.from_pretrained(smollm2, dtype="f32", max_model_len=512)


@pytest.fixture(scope="session")
def reference():
    file = FIXTURES / "reference" / "smollm2-135m-instruct.json"
    return json.loads(file.read_text())


def test_greedy_float32_gives_the_tokens_of_transformers(model, reference):
    item = reference["items"][0]
    answer = model.generate(item["text"], max_tokens=reference["max_new_tokens"])
    assert answer.prompt_token_ids == item["prompt_ids"]
    assert answer.token_ids == item["output_ids"]
    assert answer.finish_reason == "stop"


def test_text_and_its_token_ids_are_the_same_prompt(model):
    text = "Once upon a time, there was a little"
    ids = model.encode(text)
    assert model.generate(ids, max_tokens=8).token_ids == model.generate(text, max_tokens=8).token_ids


def test_messages_go_through_the_chat_template(model):
    answer = model.generate(MESSAGES, max_tokens=16)
    assert "Paris" in answer.text
    assert answer.prompt_token_ids == model.encode(MESSAGES)
    assert len(answer.prompt_token_ids) > len(model.encode(MESSAGES[0]["content"]))


def test_a_stream_gives_the_same_text_in_pieces(model):
    whole = model.generate(MESSAGES, max_tokens=24)
    stream = model.generate(MESSAGES, max_tokens=24, stream=True)
    pieces = list(stream)
    assert len(pieces) > 1
    assert "".join(pieces) == whole.text
    assert stream.result().token_ids == whole.token_ids
    assert next(stream, None) is None


def test_a_closed_stream_ends_the_answer(model):
    with model.generate("The numbers from one:", max_tokens=400, stream=True) as stream:
        assert next(stream)
    assert list(stream) == []
    result = stream.result()
    assert result.finish_reason == "abort"
    assert len(result.token_ids) < 400
    # The model is free again.
    assert model.generate("The capital of France is", max_tokens=1).text == " Paris"


def test_a_forgotten_stream_does_not_hold_the_model(model):
    stream = model.generate("The numbers from one:", max_tokens=400, stream=True)
    next(stream)
    del stream
    assert model.generate("The capital of France is", max_tokens=1).text == " Paris"


def interrupt_soon(started):
    """Control-C from another thread, which needs the GIL to send it."""
    # Whatever runs the tests in the background of a shell has it ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)

    def run():
        started.wait()
        time.sleep(0.2)
        signal.raise_signal(signal.SIGINT)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_control_c_from_another_thread_stops_an_answer(model):
    started = threading.Event()
    thread = interrupt_soon(started)
    with pytest.raises(KeyboardInterrupt):
        started.set()
        model.generate("The numbers from one:", max_tokens=10**6, stop="no such text")
    thread.join()
    # The model is free again.
    assert model.generate("The capital of France is", max_tokens=1).text == " Paris"


def test_control_c_stops_a_stream(model):
    started = threading.Event()
    thread = interrupt_soon(started)
    stream = model.generate("The numbers from one:", max_tokens=10**6, stream=True)
    with pytest.raises(KeyboardInterrupt):
        for _ in stream:
            started.set()
    thread.join()
    assert list(stream) == []
    assert stream.result().finish_reason == "abort"


def test_other_threads_run_while_the_model_works(model):
    answers = []
    worker = threading.Thread(target=lambda: answers.append(model.generate("Once upon a time", max_tokens=32)))
    worker.start()
    turns = 0
    while worker.is_alive():
        turns += 1
    worker.join()
    assert len(answers) == 1
    # With the GIL held all the while there would be a turn or two.
    assert turns > 1000


def test_the_same_seed_gives_the_same_text(model):
    def ask(seed):
        return model.generate(MESSAGES, max_tokens=16, temperature=1.5, top_p=0.95, seed=seed).token_ids

    assert ask(1) == ask(1)
    assert len({tuple(ask(seed)) for seed in range(4)}) > 1


def test_the_text_ends_before_a_stop_string(model):
    answer = model.generate("The capital of France is", max_tokens=16, stop="answer")
    assert answer.finish_reason == "stop"
    assert answer.text == " Paris.\n\nThe "


@pytest.mark.parametrize("arguments, word", [
    ({"temperature": -1.0}, "temperature"),
    ({"top_p": 0.0}, "top_p"),
    ({"min_p": 2.0}, "min_p"),
    ({"max_tokens": 0}, "max_tokens"),
    ({"repetition_penalty": 0.0}, "repetition_penalty"),
])
def test_a_sampling_value_out_of_range_is_named(model, arguments, word):
    with pytest.raises(ttpu.Error, match=word) as caught:
        model.generate("Hello", **arguments)
    assert caught.value.code == "INVALID_ARGUMENT"


@pytest.mark.parametrize("prompt", [[], [10**6], [-1], [{"role": "user"}, 7], ""])
def test_a_bad_prompt_is_an_error(model, prompt):
    with pytest.raises(ttpu.Error):
        model.generate(prompt, max_tokens=1)


def test_a_prompt_that_is_too_long_is_an_error_of_the_stream_too(model):
    prompt = model.encode("a b c d") * 200
    with pytest.raises(ttpu.Error) as caught:
        list(model.generate(prompt, max_tokens=1, stream=True))
    assert caught.value.code == "OUT_OF_RANGE"


def test_a_prompt_of_another_type_is_a_type_error(model):
    with pytest.raises(TypeError):
        model.generate(7)


@pytest.mark.parametrize("arguments, code", [
    ({"backend": "torch_xla"}, "UNIMPLEMENTED"),
    ({"task": "training"}, "UNIMPLEMENTED"),
    ({"parallelism_strategy": "fsdp"}, "UNIMPLEMENTED"),
    ({"dtype": "f8"}, "INVALID_ARGUMENT"),
    ({"max_model_len": -1}, "INVALID_ARGUMENT"),
])
def test_an_unsupported_argument_is_named_with_what_is_supported(arguments, code):
    (name, value), = arguments.items()
    with pytest.raises(ttpu.Error, match=f"{name} is .*{value}.*expected") as caught:
        ttpu.AutoModelForTPU.from_pretrained("a/b", **arguments)
    assert caught.value.code == code


def test_a_model_that_is_not_there_is_not_found(monkeypatch, tmp_path):
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(ttpu.Error) as caught:
        ttpu.AutoModelForTPU.from_pretrained("nobody/nothing")
    assert caught.value.code == "NOT_FOUND"
