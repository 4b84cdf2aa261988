"""The page at / in headless Chromium: a person's way through it, with the keyboard and with a screen reader's eyes."""

import json
import shutil

import pytest
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.support.wait import WebDriverWait

SECONDS = 60


@pytest.fixture(scope="module", name="browser")
def fixture_browser():
    chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")
    assert chromium and driver, "chromium and chromedriver are missing; tools/setup.sh system installs them"
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu", "--no-first-run",
                 "--disable-background-networking", "--disable-component-update", "--window-size=1200,900"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    yield browser
    browser.quit()


@pytest.fixture(name="page")
def fixture_page(browser, server):
    """The page, loaded anew, answering greedily."""
    browser.get_log("performance")
    browser.get(server.url + "/")
    wait(browser, lambda: element(browser, "model").text == "smollm2")
    set_value(browser, "temperature", "0")
    set_value(browser, "max_tokens", "12")
    yield browser
    errors = [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"]
    assert not errors


def element(browser, name):
    return browser.find_element(By.ID, name)


def wait(browser, condition):
    return WebDriverWait(browser, SECONDS, poll_frequency=0.05).until(lambda _: condition())


def set_value(browser, name, value):
    browser.execute_script("arguments[0].value = arguments[1]", element(browser, name), value)


def messages(browser):
    return [(item.get_attribute("class"), item.find_element(By.CLASS_NAME, "text").text,
             item.find_element(By.CLASS_NAME, "note").text)
            for item in browser.find_elements(By.CSS_SELECTOR, "#log li")]


def ask(browser, text):
    element(browser, "prompt").send_keys(text, Keys.ENTER)


def answered(browser):
    wait(browser, lambda: element(browser, "send").is_enabled() and len(messages(browser)) % 2 == 0)
    return messages(browser)


def expected(server, **options):
    body = {"temperature": 0, "max_tokens": 12, "top_p": 0.95, **options}
    return server.post("/v1/chat/completions", body).json()["choices"][0]["message"]["content"]


def test_nothing_comes_from_elsewhere(page, server):
    asked = [json.loads(entry["message"])["message"] for entry in page.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in asked
            if event["method"] == "Network.requestWillBeSent"]
    assert any(url == server.url + "/v1/models" for url in urls)
    assert all(url.startswith((server.url, "data:")) for url in urls), urls


def test_an_answer_streams_in_and_is_what_the_server_says(page, server):
    # Every change of the answer's text is written down.
    page.execute_script("""
        window.seen = [];
        new MutationObserver(() => seen.push(document.querySelector('#log li.assistant .text')?.textContent))
            .observe(document.getElementById('log'), {childList: true, subtree: true, characterData: true});""")
    ask(page, "What is a TPU?")
    (who, question, _), (model, text, note) = answered(page)
    assert (who, question, model) == ("user", "What is a TPU?", "assistant")
    assert text == expected(server, messages=[{"role": "user", "content": "What is a TPU?"}]).strip()
    assert "12 tokens" in note and "ended at the most tokens" in note
    pieces = {piece for piece in page.execute_script("return seen") if piece}
    assert len(pieces) > 3  # it came piece by piece
    assert element(page, "status").get_attribute("textContent").startswith("The answer: ")


def test_the_conversation_and_the_parameters_are_sent(page, server):
    set_value(page, "system", "You are a pirate.")
    set_value(page, "max_tokens", "5")
    ask(page, "Hi")
    first = answered(page)[1][1]
    ask(page, "And now?")
    second = answered(page)[3][1]
    system = {"role": "system", "content": "You are a pirate."}
    history = [system, {"role": "user", "content": "Hi"}]
    whole = expected(server, messages=history, max_tokens=5)
    assert first == whole.strip()
    history += [{"role": "assistant", "content": whole}, {"role": "user", "content": "And now?"}]
    assert second == expected(server, messages=history, max_tokens=5).strip()


def test_stop_ends_the_answer_and_frees_the_place(page, server):
    set_value(page, "max_tokens", "2000")
    for stop in (lambda: element(page, "stop").click(),
                 lambda: element(page, "prompt").send_keys(Keys.ESCAPE)):
        ask(page, "Write a very long story about a ship.")
        wait(page, lambda: messages(page)[-1][1])
        assert not element(page, "send").is_enabled()
        stop()
        assert answered(page)[-1][2] == "Stopped"
        server.wait_for("vllm:num_requests_running", 0, seconds=20)
        element(page, "clear").click()  # the answer to what was cut off may be a short one


def test_answer_again_and_a_new_conversation(page):
    ask(page, "Hi")
    first = answered(page)
    element(page, "again").click()
    wait(page, lambda: element(page, "stop").is_enabled() or element(page, "again").is_enabled())
    assert [item[1] for item in answered(page)] == [item[1] for item in first]
    element(page, "clear").click()
    assert not messages(page)
    assert page.switch_to.active_element.get_attribute("id") == "prompt"


def test_an_answer_is_copied(page, server):
    page.execute_cdp_cmd("Browser.grantPermissions", {
        "origin": server.url, "permissions": ["clipboardReadWrite", "clipboardSanitizedWrite"]})
    ask(page, "Hi")
    text = answered(page)[1][1]
    button = page.find_element(By.CSS_SELECTOR, "#log li.assistant button")
    button.click()
    wait(page, lambda: button.text == "Copied")
    copied = page.execute_async_script("navigator.clipboard.readText().then(arguments[0])")
    assert copied.strip() == text


def test_a_refusal_is_shown(page):
    set_value(page, "temperature", "-5")
    ask(page, "Hi")
    assert "temperature" in answered(page)[1][2]
    page.get_log("browser")  # the browser reports the status itself


def test_the_keyboard_reaches_everything_in_order(page):
    page.execute_script("document.activeElement.blur(); window.scrollTo(0, 0);")
    order = []
    page.find_element(By.TAG_NAME, "body").click()
    element(page, "log").click()
    for _ in range(20):
        page.switch_to.active_element.send_keys(Keys.TAB)
        order.append(page.switch_to.active_element.get_attribute("id"))
    wanted = ["prompt", "send", "clear", "system", "temperature", "top_p", "top_k", "max_tokens", "seed", "key"]
    start = order.index("prompt")
    assert order[start:start + len(wanted)] == wanted
    # What has the focus is seen to have it.
    element(page, "prompt").send_keys(Keys.TAB)
    assert page.execute_script("return getComputedStyle(document.activeElement).outlineStyle") == "solid"
    # Shift+Enter is a new line and sends nothing.
    element(page, "prompt").send_keys("one", Keys.SHIFT + Keys.ENTER, Keys.NULL, "two")
    assert element(page, "prompt").get_attribute("value") == "one\ntwo"
    assert not messages(page)


def test_what_a_screen_reader_is_told(page):
    ask(page, "Hi")
    answered(page)
    nodes = page.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    named = [(node["role"]["value"], node.get("name", {}).get("value", "")) for node in nodes
             if not node["ignored"] and "role" in node]
    for role in ("button", "textbox", "spinbutton", "list", "meter", "region", "image"):
        names = [name for which, name in named if which == role]
        assert names and all(names), (role, names)
    for wanted in (("heading", "Chat with smollm2"), ("region", "Parameters"), ("region", "The server now"),
                   ("button", "Send"), ("button", "Stop"), ("button", "Copy the answer"), ("spinbutton", "Temperature"),
                   ("list", "Conversation")):
        assert wanted in named, (wanted, named)
    roles = {role for role, _ in named}
    assert {"main", "complementary", "status"} <= roles
    assert page.execute_script("return document.documentElement.lang") == "en"
    # Text and background differ enough for weak eyes (WCAG AA: 4.5).
    assert page.execute_script("""
        const light = c => {
          const [r, g, b] = c.match(/\\d+/g).map(v => v / 255).map(v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4);
          return .2126 * r + .7152 * g + .0722 * b;
        };
        const back = e => { for (; e; e = e.parentElement) {
          const c = getComputedStyle(e).backgroundColor; if (!/, 0\\)$/.test(c)) return c; } return 'rgb(255, 255, 255)'; };
        return [...document.querySelectorAll('label, dt, dd, h1, h2, .who span, .text, .note, button:enabled')].map(e => {
          const [a, b] = [light(getComputedStyle(e).color), light(back(e))];
          return [e.textContent.trim(), (Math.max(a, b) + .05) / (Math.min(a, b) + .05)];
        }).filter(([text, ratio]) => text && ratio < 4.5);""") == []


def test_the_live_view_follows_the_server(page, server):
    set_value(page, "max_tokens", "1500")
    wait(page, lambda: element(page, "running").text == "0")
    ask(page, "Write a very long story about a ship.")
    wait(page, lambda: element(page, "running").text == "1")
    wait(page, lambda: float(element(page, "out").text) > 0)
    wait(page, lambda: float(element(page, "cache").get_attribute("value")) > 0)
    wait(page, lambda: " " in element(page, "itl").text)  # "12 ms"
    assert element(page, "memory").text.endswith(" MB")
    assert "," in element(page, "curve").get_attribute("points")
    element(page, "stop").click()
    wait(page, lambda: element(page, "running").text == "0")
    server.wait_for("vllm:num_requests_running", 0)
