"""`ttpu chat` as a person uses it, in a terminal, with SmolLM2."""

import contextlib
import json
import re
import signal
import subprocess

import pexpect
import pytest

# At the start of a line; what was read before is gone from the buffer.
PROMPT = re.compile(r"(?:\A|\r\n)> \Z")
CONTROL_C = "\x03"


class Chat:
    """A conversation in a pseudo-terminal."""

    def __init__(self, command, arguments):
        self.terminal = pexpect.spawn(command, ["chat", *arguments], encoding="utf-8", echo=False,
                                      timeout=120)
        self.greeting = self.until_prompt()

    def until_prompt(self) -> str:
        self.terminal.expect(PROMPT)
        return self.terminal.before.replace("\r\n", "\n")

    def say(self, line: str) -> str:
        """What comes back until the next prompt."""
        self.terminal.sendline(line)
        return self.until_prompt()

    def prompt_tokens(self) -> int:
        """How many tokens the last answer went on from."""
        return int(re.search(r"prompt +(\d+) tokens", self.say("/stats"))[1])

    def leave(self) -> int:
        """The exit status."""
        self.terminal.expect(pexpect.EOF)
        return self.terminal.wait()

    def stop(self):
        if self.terminal.isalive():
            self.terminal.kill(signal.SIGKILL)
            self.terminal.wait()


@pytest.fixture(name="chat")
def fixture_chat(command, smollm2):
    with contextlib.ExitStack() as stack:
        def start(*arguments):
            chat = Chat(command, [str(smollm2), *arguments])
            stack.callback(chat.stop)
            return chat
        yield start


def test_help_is_offered_and_lists_the_commands(chat):
    talk = chat()
    assert "/help" in talk.greeting
    shown = talk.say("/help")
    for name in ("/system", "/reset", "/quit", "Ctrl-C", "Ctrl-D"):
        assert name in shown
    assert "/help" in talk.say("/nothing")


def test_a_conversation_is_the_chat_template_over_all_its_messages(chat, command, smollm2, tmp_path):
    system = "You are a helpful guide to Europe."
    talk = chat("--system", system, "--max-tokens", "32")
    messages = [{"role": "system", "content": system}]
    for question in ("What is the capital of France?", "And of Italy?"):
        messages.append({"role": "user", "content": question})
        answer = talk.say(question).removesuffix("\n")
        item = tmp_path / "messages.jsonl"
        item.write_text(json.dumps({"messages": messages}) + "\n")
        shown = subprocess.run([command, "generate", smollm2, "--input", item, "--json",
                                "--max-tokens", "32"], capture_output=True, text=True, check=True)
        expected = json.loads(shown.stdout)
        assert answer == expected["text"]
        assert talk.prompt_tokens() == len(expected["prompt_token_ids"])
        messages.append({"role": "assistant", "content": answer})
    assert "Paris" in messages[2]["content"]


def test_a_new_system_prompt_starts_over(chat):
    talk = chat("--max-tokens", "4")
    talk.say("Hello")
    first = talk.prompt_tokens()
    talk.say("Hello")
    assert talk.prompt_tokens() > first
    talk.say("/reset")
    talk.say("Hello")
    assert talk.prompt_tokens() == first
    talk.say("/system Say little.")
    talk.say("Hello")
    assert talk.prompt_tokens() != first


def test_control_c_stops_the_answer_and_not_the_program(chat):
    talk = chat("--max-tokens", "2000")
    talk.terminal.sendline("Write a long story about a ship.")
    talk.terminal.expect(r"\w+ \w+ \w+ ")
    talk.terminal.send(CONTROL_C)
    talk.until_prompt()
    assert "stopped" in talk.terminal.before
    talk.say("/reset")
    assert "Paris" in talk.say("What is the capital of France?")


def test_control_c_at_the_prompt_is_not_the_end(chat):
    talk = chat()
    talk.terminal.send(CONTROL_C)
    talk.until_prompt()
    assert "/reset" in talk.say("/help")


@pytest.mark.parametrize("how", ["/quit", "control-d"])
def test_quit_and_control_d_leave(chat, how):
    talk = chat()
    if how == "/quit":
        talk.terminal.sendline(how)
    else:
        talk.terminal.sendeof()
    assert talk.leave() == 0


def test_lines_of_a_pipe_are_answered_and_its_end_leaves(command, smollm2):
    result = subprocess.run([command, "chat", smollm2], input="What is the capital of France?\n",
                            capture_output=True, text=True, check=False, timeout=300)
    assert result.returncode == 0, result.stderr
    assert "Paris" in result.stdout


def test_a_model_that_is_not_there_is_an_error_with_the_next_step(command, tmp_path):
    result = subprocess.run([command, "chat", tmp_path / "no.gguf"], stdin=subprocess.DEVNULL,
                            capture_output=True, text=True, check=False)
    assert result.returncode != 0
    assert "no.gguf" in result.stderr
    assert not result.stdout
