"""Chat templates and conversations for make_template_fixtures.py: each feature that published templates use."""

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "Weather of a <city> & its \"surroundings\" — 天気",
        "parameters": {
            "type": "object",
            "properties": {
                "city": {"type": "string", "description": "Name of the city"},
                "days": {"type": "integer", "default": 3, "minimum": 1},
                "unit": {"type": "string", "enum": ["celsius", "fahrenheit"]},
                "items": {"type": "array", "items": {"type": "number"}},
                "options": {
                    "type": "object",
                    "properties": {"wind": {"type": "boolean"}, "note": {"type": ["string", "null"]}},
                    "required": ["wind"],
                },
            },
            "required": ["city"],
        },
        "return": {"type": "string"},
    },
}
NO_ARGUMENTS = {
    "type": "function",
    "function": {"name": "now", "description": "The time.", "parameters": {"type": "object", "properties": {}}},
}
TOOLS = [WEATHER, NO_ARGUMENTS]

PLAIN = [{"role": "user", "content": "Hello"}]
TURNS = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "  Two + two?  "},
    {"role": "assistant", "content": "Four.\n"},
    {"role": "user", "content": "Sure?"},
]
UNICODE = [
    {"role": "system", "content": "Schöne Grüße & <b>HTML</b> 'single' \"double\" \\ back"},
    {"role": "user", "content": "日本語 🤖👩‍🚀 \t tab\nnew line {{ not a tag }} {% nor this %}"},
]
CALL = {"type": "function", "id": "call_1", "function": {
    "name": "get_weather", "arguments": {"city": "Zürich", "days": 2, "factor": 1.5, "deep": {"a": None, "b": [True, False, 1e-07, 1e20]}}}}
TOOL_TURNS = [
    {"role": "system", "content": "Use tools."},
    {"role": "user", "content": "Weather in Zürich?"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "name": "get_weather", "tool_call_id": "call_1", "content": "{\"temp\": 20.0, \"sky\": \"<clear>\"}"},
    {"role": "assistant", "content": "Clear, 20 °C."},
    {"role": "user", "content": "And tomorrow?"},
]
REASONING = [
    {"role": "user", "content": "Think."},
    {"role": "assistant", "content": "<think>\none\ntwo\n</think>\n\nDone."},
    {"role": "user", "content": "More."},
    {"role": "assistant", "reasoning_content": "kept apart", "content": "Yes.", "tool_calls": [CALL]},
    {"role": "tool", "content": "result one"},
    {"role": "tool", "content": "result two"},
]
BLOCKS = [
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": " What is this? "}]},
    {"role": "assistant", "content": [{"type": "text", "text": "A cat."}]},
]
VALUES = {"t": True, "f": False, "n": None, "i": -7, "x": 1.0, "y": 0.1, "z": 1e-05, "big": 1e16, "huge": 12345678901234567890,
          "s": "it's", "q": "say \"hi\"", "u": "é\u200b\n", "l": [1, 2.5, "a", None, [True]], "d": {"k": {"items": [1]}, "items": "v"},
          "e": [], "o": {}, "words": " the quick  brown\tfox\n"}

CHATML = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}
{%- if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}
"""

LLAMA3 = r"""{{- bos_token }}
{%- if custom_tools is defined %}{% set tools = custom_tools %}{% endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "26 Jul 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}{% set tools = none %}{% endif %}
{#- The system message comes first, if there is one. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\n\n" }}
{%- if tools is not none %}{{- "Environment: ipython\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\n\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message + "<|eot_id|>" }}
{%- if tools_in_user_message and not tools is none %}
    {%- if messages | length != 0 %}
        {%- set first_user_message = messages[0]['content'] | trim %}
        {%- set messages = messages[1:] %}
    {%- else %}
        {{- raise_exception("Cannot put tools in the first user message when there's no first user message!") }}
    {%- endif %}
    {{- '<|start_header_id|>user<|end_header_id|>\n\n' -}}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\n\n" }}
    {%- endfor %}
    {{- first_user_message + "<|eot_id|>" }}
{%- endif %}
{%- for message in messages %}
    {%- if not (message.role == 'ipython' or message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\n\n' + message['content'] | trim + '<|eot_id|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls | length == 1 %}
            {{- raise_exception("This model only supports single tool-calls at once!") }}
        {%- endif %}
        {%- set tool_call = message.tool_calls[0].function %}
        {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' -}}
        {%- if builtin_tools is defined and tool_call.name in builtin_tools %}
            {{- "<|python_tag|>" + tool_call.name + ".call(" }}
            {%- for arg_name, arg_val in tool_call.arguments | items %}
                {{- arg_name + '="' ~ arg_val ~ '"' }}
                {%- if not loop.last %}{{- ", " }}{%- endif %}
            {%- endfor %}
            {{- ")<|eom_id|>" }}
        {%- else %}
            {{- '{"name": "' + tool_call.name + '", "parameters": ' }}
            {{- tool_call.arguments | tojson }}
            {{- "}<|eot_id|>" }}
        {%- endif %}
    {%- else %}
        {{- "<|start_header_id|>ipython<|end_header_id|>\n\n" }}
        {%- if message.content is mapping or message.content is iterable %}
            {{- message.content | tojson }}
        {%- else %}
            {{- message.content }}
        {%- endif %}
        {{- "<|eot_id|>" }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}
{%- endif %}
"""

QWEN = r"""{%- if tools %}
    {{- '<|im_start|>system\n' }}
    {%- if messages[0].role == 'system' %}{{- messages[0].content + '\n\n' }}{%- endif %}
    {{- "# Tools\n\nFunction signatures within <tools></tools> XML tags:\n<tools>" }}
    {%- for tool in tools %}
        {{- "\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\n</tools><|im_end|>\n" }}
{%- elif messages[0].role == 'system' %}
    {{- '<|im_start|>system\n' + messages[0].content + '<|im_end|>\n' }}
{%- endif %}
{%- set ns = namespace(multi_step_tool=true, last_query_index=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.multi_step_tool and message.role == "user" and message.content is string and not(message.content.startswith('<tool_response>') and message.content.endswith('</tool_response>')) %}
        {%- set ns.multi_step_tool = false %}
        {%- set ns.last_query_index = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) %}
        {{- '<|im_start|>' + message.role + '\n' + content + '<|im_end|>' + '\n' }}
    {%- elif message.role == "assistant" %}
        {%- set reasoning_content = '' %}
        {%- if message.reasoning_content is string %}
            {%- set reasoning_content = message.reasoning_content %}
        {%- elif '</think>' in content %}
            {%- set reasoning_content = content.split('</think>')[0].rstrip('\n').split('<think>')[-1].lstrip('\n') %}
            {%- set content = content.split('</think>')[-1].lstrip('\n') %}
        {%- endif %}
        {%- if loop.index0 > ns.last_query_index and (loop.last or (not loop.last and reasoning_content)) %}
            {{- '<|im_start|>' + message.role + '\n<think>\n' + reasoning_content.strip('\n') + '\n</think>\n\n' + content.lstrip('\n') }}
        {%- else %}
            {{- '<|im_start|>' + message.role + '\n' + content }}
        {%- endif %}
        {%- if message.tool_calls %}
            {%- for tool_call in message.tool_calls %}
                {%- if (loop.first and content) or (not loop.first) %}{{- '\n' }}{%- endif %}
                {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
                {{- '<tool_call>\n{"name": "' ~ tool_call.name ~ '", "arguments": ' }}
                {%- if tool_call.arguments is string %}
                    {{- tool_call.arguments }}
                {%- else %}
                    {{- tool_call.arguments | tojson }}
                {%- endif %}
                {{- '}\n</tool_call>' }}
            {%- endfor %}
        {%- endif %}
        {{- '<|im_end|>\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}{{- '<|im_start|>user' }}{%- endif %}
        {{- '\n<tool_response>\n' }}
        {{- content }}
        {{- '\n</tool_response>' }}
        {%- if loop.last or (messages[loop.index0 + 1].role != "tool") %}{{- '<|im_end|>\n' }}{%- endif %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\n\n</think>\n\n' }}{%- endif %}
{%- endif %}"""

MISTRAL = r"""{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- if not tools is defined %}{%- set tools = none %}{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or message.role == "tool_results" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("After the optional system message, conversation roles must alternate user/assistant/user/assistant/...") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[AVAILABLE_TOOLS] [" }}
            {%- for tool in tools %}
                {%- set tool = tool.function %}
                {{- '{"type": "function", "function": {' }}
                {%- for key, val in tool.items() if key != "return" %}
                    {%- if val is string %}
                        {{- '"' + key + '": "' + val + '"' }}
                    {%- else %}
                        {{- '"' + key + '": ' + val|tojson }}
                    {%- endif %}
                    {%- if not loop.last %}{{- ", " }}{%- endif %}
                {%- endfor %}
                {{- "}}" }}
                {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" }}{%- endif %}
            {%- endfor %}
            {{- "[/AVAILABLE_TOOLS]" }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[INST] " + system_message + "\n\n" + message["content"] + "[/INST]" }}
        {%- else %}
            {{- "[INST] " + message["content"] + "[/INST]" }}
        {%- endif %}
    {%- elif message.tool_calls is defined and message.tool_calls is not none %}
        {{- "[TOOL_CALLS] [" }}
        {%- for tool_call in message.tool_calls %}
            {%- set out = tool_call.function|tojson %}
            {{- out[:-1] }}
            {%- if not tool_call.id is defined or tool_call.id|length < 3 %}
                {{- raise_exception("Tool call IDs should be longer!") }}
            {%- endif %}
            {{- ', "id": "' + tool_call.id + '"}' }}
            {%- if not loop.last %}{{- ", " }}{%- else %}{{- "]" + eos_token }}{%- endif %}
        {%- endfor %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token }}
    {%- elif message["role"] == "tool_results" or message["role"] == "tool" %}
        {%- if message.content is defined and message.content.content is defined %}
            {%- set content = message.content.content %}
        {%- else %}
            {%- set content = message.content %}
        {%- endif %}
        {{- '[TOOL_RESULTS] {"content": ' + content|string + ", " }}
        {{- '"call_id": "' + message.tool_call_id + '"}[/TOOL_RESULTS]' }}
    {%- else %}
        {{- raise_exception("Only user and assistant roles are supported, with the exception of an initial optional system message!") }}
    {%- endif %}
{%- endfor %}
"""

GEMMA = r"""{{ bos_token }}
{%- if messages[0]['role'] == 'system' -%}
    {%- if messages[0]['content'] is string -%}
        {%- set first_user_prefix = messages[0]['content'] + '\n\n' -%}
    {%- else -%}
        {%- set first_user_prefix = messages[0]['content'][0]['text'] + '\n\n' -%}
    {%- endif -%}
    {%- set loop_messages = messages[1:] -%}
{%- else -%}
    {%- set first_user_prefix = "" -%}
    {%- set loop_messages = messages -%}
{%- endif -%}
{%- for message in loop_messages -%}
    {%- if (message['role'] == 'user') != (loop.index0 % 2 == 0) -%}
        {{ raise_exception("Conversation roles must alternate user/assistant/user/assistant/...") }}
    {%- endif -%}
    {%- if (message['role'] == 'assistant') -%}
        {%- set role = "model" -%}
    {%- else -%}
        {%- set role = message['role'] -%}
    {%- endif -%}
    {{ '<start_of_turn>' + role + '\n' + (first_user_prefix if loop.first else "") }}
    {%- if message['content'] is string -%}
        {{ message['content'] | trim }}
    {%- elif message['content'] is iterable -%}
        {%- for item in message['content'] -%}
            {%- if item['type'] == 'image' -%}
                {{ '<start_of_image>' }}
            {%- elif item['type'] == 'text' -%}
                {{ item['text'] | trim }}
            {%- endif -%}
        {%- endfor -%}
    {%- else -%}
        {{ raise_exception("Invalid content type") }}
    {%- endif -%}
    {{ '<end_of_turn>\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{ '<start_of_turn>model\n' }}
{%- endif -%}
"""

PHI = """{% for message in messages %}
{% if message['role'] == 'system' and 'tools' in message and message['tools'] is not none %}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|tool|>' + message['tools'] + '<|/tool|>' + '<|end|>' }}
{% else %}
{{ '<|' + message['role'] + '|>' + message['content'] + '<|end|>' }}
{% endif %}
{% endfor %}
{% if add_generation_prompt %}
{{ '<|assistant|>\\n' }}
{% else %}
{{ eos_token }}
{% endif %}
"""

DEEPSEEK = r"""{% if not add_generation_prompt is defined %}{% set add_generation_prompt = false %}{% endif %}{% set ns = namespace(is_first=false, is_tool=false, is_output_first=true, system_prompt='', is_first_sp=true) %}{%- for message in messages %}{%- if message['role'] == 'system' %}{%- if ns.is_first_sp %}{% set ns.system_prompt = ns.system_prompt + message['content'] %}{% set ns.is_first_sp = false %}{%- else %}{% set ns.system_prompt = ns.system_prompt + '\n\n' + message['content'] %}{%- endif %}{%- endif %}{%- endfor %}{{ bos_token }}{{ ns.system_prompt }}{%- for message in messages %}{%- if message['role'] == 'user' %}{%- set ns.is_tool = false -%}{{'<｜User｜>' + message['content']}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' in message %}{%- set ns.is_tool = false -%}{%- for tool in message['tool_calls'] %}{%- if not ns.is_first %}{%- if message['content'] is none %}{{'<｜Assistant｜><｜tool▁calls▁begin｜>' + tool['type'] + '<｜tool▁sep｜>' + tool['function']['name'] + '\n' + '```json' + '\n' + tool['function']['arguments']|tojson + '\n' + '```'}}{%- else %}{{message['content'] + tool['type']}}{%- endif %}{%- set ns.is_first = true -%}{%- endif %}{%- endfor %}{{'<｜tool▁calls▁end｜>'}}{%- endif %}{%- if message['role'] == 'assistant' and 'tool_calls' not in message %}{%- if ns.is_tool %}{{'<｜tool▁outputs▁end｜>' + message['content'] + eos_token}}{%- set ns.is_tool = false -%}{%- else %}{% set content = message['content'] %}{% if '</think>' in content %}{% set content = content.split('</think>')[-1] %}{% endif %}{{'<｜Assistant｜>' + content + eos_token}}{%- endif %}{%- endif %}{%- if message['role'] == 'tool' %}{%- set ns.is_tool = true -%}{%- if ns.is_output_first %}{{'<｜tool▁outputs▁begin｜>' + message['content']}}{%- set ns.is_output_first = false %}{%- else %}{{'\n' + message['content']}}{%- endif %}{%- endif %}{%- endfor -%}{% if ns.is_tool %}{{'<｜tool▁outputs▁end｜>'}}{% endif %}{% if add_generation_prompt and not ns.is_tool %}{{'<｜Assistant｜><think>\n'}}{% endif %}"""

HERMES = r"""{%- macro json_to_python_type(json_spec) %}
{%- set basic_type_map = {"string": "str", "number": "float", "integer": "int", "boolean": "bool"} %}
{%- if basic_type_map[json_spec.type] is defined %}
    {{- basic_type_map[json_spec.type] }}
{%- elif json_spec.type == "array" %}
    {{- "list[" + json_to_python_type(json_spec['items']) + "]" }}
{%- elif json_spec.type == "object" %}
    {%- if json_spec.additionalProperties is defined %}
        {{- "dict[str, " + json_to_python_type(json_spec.additionalProperties) + ']' }}
    {%- else %}
        {{- "dict" }}
    {%- endif %}
{%- elif json_spec.type is iterable %}
    {{- "Union[" }}
    {%- for t in json_spec.type %}
        {{- json_to_python_type({"type": t}) }}
        {%- if not loop.last %}{{- "," }}{%- endif %}
    {%- endfor %}
    {{- "]" }}
{%- else %}
    {{- "Any" }}
{%- endif %}
{%- endmacro %}
{{- bos_token }}<|im_start|>system
You may call functions: <tools> {% for tool in tools %}
{%- if tool.function is defined %}{%- set tool = tool.function %}{%- endif %}
{{- '{"type": "function", "function": ' }}{{- '{"name": "' + tool.name + '", ' }}
{{- '"description": "' + tool.name + '(' }}
{%- for param_name, param_fields in tool.parameters.properties|items %}
    {{- param_name + ": " + json_to_python_type(param_fields) }}
    {%- if not loop.last %}{{- ", " }}{%- endif %}
{%- endfor %}
{{- ")" }}
{%- if tool.return is defined %}{{- " -> " + json_to_python_type(tool.return) }}{%- endif %}
{{- " - " + tool.description + "\n\n" }}
{{- '"parameters": ' }}
{%- if tool.parameters.properties | length == 0 %}{{- "{}" }}{%- else %}{{- tool.parameters|tojson(indent=2) }}{%- endif %}
{{- "}" }}
{%- if not loop.last %}{{- "\n" }}{%- endif %}
{%- endfor %} </tools><|im_end|>
{% for message in messages %}
{{- '<|im_start|>' + message.role + '\n' ~ message.content ~ '<|im_end|>\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{ "<|im_start|>assistant\n" }}{% endif %}
"""

TYPESCRIPT = r"""{%- macro render_type(spec, required, required_properties) -%}
    {%- if spec.type == "array" -%}
        {%- if spec['items'] -%}
            {%- if spec['items']['type'] == "string" -%}{{- "string[]" }}
            {%- elif spec['items']['type'] == "number" or spec['items']['type'] == "integer" -%}{{- "number[]" }}
            {%- else -%}
                {%- set inner = render_type(spec['items'], required_properties) -%}
                {%- if inner == "object | object" or inner|length > 50 -%}{{- "any[]" }}
                {%- else -%}{{- inner + "[]" }}{%- endif -%}
            {%- endif -%}
        {%- else -%}{{- "any[]" }}{%- endif -%}
    {%- elif spec.type is defined and spec.type is iterable and spec.type is not string and spec.type is not mapping and spec.type[0] is defined -%}
        {{- spec.type | join(" | ") }}
    {%- elif spec.oneOf -%}
        {%- for variant in spec.oneOf -%}
            {{- render_type(variant, required_properties) -}}
            {%- if not loop.last %}{{- " | " }}{%- endif -%}
        {%- endfor -%}
    {%- elif spec.type == "string" -%}
        {%- if spec.enum -%}{{- '"' + spec.enum|join('" | "') + '"' -}}
        {%- else -%}{{- "string" }}{%- if spec.nullable %}{{- " | null" }}{%- endif -%}{%- endif -%}
    {%- elif spec.type == "number" or spec.type == "integer" -%}{{- "number" }}
    {%- elif spec.type == "boolean" -%}{{- "boolean" }}
    {%- elif spec.type == "object" -%}
        {%- if spec.properties -%}
            {{- "{\n" }}
            {%- for name, value in spec.properties.items() -%}
                {{- name -}}
                {%- if name not in (spec.required or []) -%}{{- "?" }}{%- endif -%}
                {{- ": " }}{{ render_type(value, spec.required or []) }}
                {%- if not loop.last -%}{{- ", " }}{%- endif -%}
            {%- endfor -%}
            {{- "}" }}
        {%- else -%}{{- "object" }}{%- endif -%}
    {%- else -%}{{- "any" }}{%- endif -%}
{%- endmacro -%}
{%- macro render_namespace(name, tools) -%}
    {{- "## " + name + "\n\n" }}{{- "namespace " + name + " {\n\n" }}
    {%- for tool in tools %}
        {%- set tool = tool.function %}
        {{- "// " + tool.description + "\n" }}{{- "type " + tool.name + " = " }}
        {%- if tool.parameters and tool.parameters.properties %}
            {{- "(_: {\n" }}
            {%- for name, spec in tool.parameters.properties.items() %}
                {%- if spec.description %}{{- "// " + spec.description + "\n" }}{%- endif %}
                {{- name }}
                {%- if name not in (tool.parameters.required or []) %}{{- "?" }}{%- endif -%}
                {{- ": " }}{{- render_type(spec, tool.parameters.required or []) }}
                {%- if spec.default is defined -%}
                    {%- if spec.enum %}{{- ", // default: " + spec.default }}
                    {%- elif spec.oneOf %}{{- "// default: " + spec.default }}
                    {%- else %}{{- ", // default: " + spec.default|tojson }}{%- endif -%}
                {%- endif -%}
                {%- if not loop.last %}{{- ",\n" }}{%- else %}{{- "\n" }}{%- endif -%}
            {%- endfor %}
            {{- "}) => any;\n\n" }}
        {%- else -%}{{- "() => any;\n\n" }}{%- endif -%}
    {%- endfor %}
    {{- "} // namespace " + name }}
{%- endmacro -%}
{%- set model_identity = model_identity if model_identity is defined else "You are a model." %}
{{- "<|start|>system<|message|>" + model_identity + "\nCurrent date: " + strftime_now("%Y-%m-%d") + "\nReasoning: " + (reasoning_effort or "medium") if reasoning_effort is defined else "<|start|>" }}
{% if tools -%}{{ render_namespace("functions", tools) }}{%- endif -%}
{%- set last_tool_call = namespace(name=none) %}
{%- for message in loop_messages|default(messages) -%}
    {%- if message.role == 'assistant' -%}
        {%- if "tool_calls" in message %}
            {%- set tool_call = message.tool_calls[0] %}
            {%- if tool_call.function %}{%- set tool_call = tool_call.function %}{%- endif %}
            {{- "<|start|>assistant to=functions." + tool_call.name + "<|channel|>commentary json<|message|>" }}
            {{- tool_call.arguments|tojson }}{{- "<|call|>" }}
            {%- set last_tool_call.name = tool_call.name %}
        {%- elif message.thinking and not loop.nextitem is defined %}
            {{- "<|start|>assistant<|channel|>analysis<|message|>" + message.thinking + "<|end|>" }}
        {%- else %}{{- "<|start|>assistant<|channel|>final<|message|>" + message.content + "<|end|>" }}{%- endif %}
    {%- elif message.role == 'tool' -%}
        {%- if last_tool_call.name is none %}{{- raise_exception("Message has tool role, but there was no previous assistant message with a tool call!") }}{%- endif %}
        {{- "<|start|>functions." + last_tool_call.name + " to=assistant<|message|>" + message.content|tojson + "<|end|>" }}
    {%- elif message.role == 'user' -%}
        {{- "<|start|>user<|message|>" + message.content + "<|end|>" }}
    {%- endif -%}
{%- endfor -%}
"""

GENERATION = """{% for message in messages %}
    {%- if message.role == 'assistant' %}
<|assistant|>
{% generation %}
{% set inner = message.content | trim %}
{{- inner }}{{ eos_token }}
{%- endgeneration %}
    {%- else %}
<|{{ message.role }}|>{{ inner is defined }}
{{ message.content }}
    {%- endif %}
{% endfor %}{# {% generation %} in a comment #}{{ '{% generation %}' }}{% raw %}{% generation %}{% endraw %}
{%- if add_generation_prompt %}<|assistant|>{%- generation -%} x {%- endgeneration -%}{% endif %}"""

LOOPS = """{%- for m in messages %}
{%- if loop.index > 3 %}{% break %}{% endif %}
{%- if m.role == 'system' %}{% continue %}{% endif %}
[{{ loop.index }}/{{ loop.length }} {{ loop.revindex }} {{ loop.revindex0 }} {{ loop.first }} {{ loop.last }} {{ loop.cycle('odd', 'even') }} {{ loop.previtem.role if loop.previtem is defined else 'none' }} {{ loop.depth }} {{ loop.changed(m.role) }}]{{ m.content }}
{%- else %}nothing{% endfor %}
{% for m in [] %}{{ m }}{% else %}empty{% endfor %}
{% for m in messages if m.role == 'user' %}{{ loop.index }}:{{ m.content }};{% endfor %}
{% for k, v in {'a': 1, 'b': [2, 3]}.items() %}{{ k }}={{ v }} {% endfor %}
{% for a, b in [(1, 2), (3, 4)] %}{{ a + b }},{% endfor %}
{% for c in 'abc' %}{{ c }}-{% endfor %}{% for i in range(10, 0, -3) %}{{ i }} {% endfor %}
{% for node in [{'n': 1, 'sub': [{'n': 2, 'sub': []}]}] recursive %}<{{ node.n }}{{ loop(node.sub) }}>{% endfor %}
{%- set ns = namespace(found=false, list=[]) %}
{% for m in messages %}{% set ns.found = true %}{% set ns.list = ns.list + [m.role] %}{% set lost = 1 %}{% endfor %}
{{ ns.found }} {{ ns.list }} {{ lost is defined }}
"""

# One expression each; rendered as `{{ ... }}` and joined by new lines.
EXPRESSIONS = {
    "printing": ["t", "f", "n", "i", "x", "y", "z", "big", "huge", "s", "q", "u", "l", "d", "e", "o", "[s, q, u]", "{'a': none, 1: 2.0}",
                 "(1,)", "(1, 'b')", "()", "missing", "[missing is defined]", "1e-4", "123456789.0", "1.5e300", "-0.0", "true", "True", "none", "None",
                 "d.k", "l[-1]", "{'x': [z, big]}", "words.split()", "d.items() | list", "d.keys() | list", "d.values() | list"],
    "tojson": ["l | tojson", "d | tojson", "s | tojson", "u | tojson", "q | tojson", "'<a href=\"x\">&</a>' | tojson", "n | tojson", "t | tojson",
               "big | tojson", "z | tojson", "x | tojson", "huge | tojson", "e | tojson", "o | tojson", "e | tojson(indent=2)", "o | tojson(indent=2)",
               "d | tojson(indent=2)", "l | tojson(indent=1)", "u | tojson(ensure_ascii=True)", "'😀\x7f' | tojson(ensure_ascii=true)",
               "d | tojson(separators=(',', ':'))", "{'b': 1, 'a': 2} | tojson(sort_keys=True)", "{'b': 1, 'a': [1]} | tojson(indent=4, sort_keys=true, separators=(', ', ' = '))",
               "{1: 2, none: 3, true: 4, 1.5: 5} | tojson", "(1, 2) | tojson", "d | tojson(indent='\t')", "d | tojson(indent=none)", "l | tojson(indent=0)", "(l | map('string') | list) | tojson",
               "d | tojson(false, 2)"],
    "strings": ["words.strip()", "words.lstrip() ~ '|'", "words.rstrip() ~ '|'", "'xxaxx'.strip('x')", "'\x1ca\x1f'.strip()", "'a,b,,c'.split(',')", "'a,b,,c'.split(',', 1)", "'a b  c'.split(none, 1)",
                "'a,b,,c'.rsplit(',', 1)", "' a b '.rsplit()", "'a\nb\r\nc'.splitlines()", "'they\\'re bill\\'s'.title()", "'they\\'re bill-x 1st'|title", "'hELLO wORLD'.capitalize()",
                "'hELLO'|capitalize", "'ß'.upper()", "'ÀB'.lower()", "'aXb'.swapcase()", "'abc'.startswith('ab')", "'abc'.startswith(('x', 'a'))", "'abc'.endswith('c')", "'abcabc'.find('c')", "'abcabc'.rfind('c')", "'é日x'.find('x')",
                "'abc'.find('z')", "'aaa'.count('a')", "'a-b'.replace('-', '+')", "'aaa'.replace('a', 'b', 2)", "'-'.join(['a', 'b'])", "'a=b=c'.partition('=')", "'a=b=c'.rpartition('=')", "'abc'.removeprefix('a')", "'abc'.removesuffix('c')",
                "'7'.zfill(3)", "'-7'.zfill(4)", "'a'.ljust(3) ~ '|'", "'a'.rjust(3)", "'a'.center(4) ~ '|'", "'a'.center(4, '*')", "'12'.isdigit()", "'a1'.isalnum()", "'ab'.isalpha()", "' '.isspace()", "'Ab'.isupper()", "'{} {}'.format(1, 'x')", "'{0}{a}'.format(1, a=2)", "'%s' | format('v')", "'%.2f|%d' | format(3.14159, 7)", "'one two three four' | truncate(9)", "'one two three four' | truncate(9, true, '..', 0)", "'one two three' | truncate(length=5, leeway=0)", "'a' ~ 1 ~ none ~ true ~ 1.5", "'ab' * 3", "'a' + 'b'", "'abc'[0]", "'abc'[-1]", "'abc'[1:]", "'abc'[::-1]", "'日本語'[1:]", "'abc'[:2]", "'b' in 'abc'", "'z' not in 'abc'", "'abc' | length", "'日本' | length",
                "'a' < 'b'", "'abc' | first", "'abc' | last", "'abc' | list", "'abc' | reverse", "'  x ' | trim", "'xax' | trim('x')", "'a b' | replace(' ', '_')", "'A' | lower", "'a' | upper", "'one two' | wordcount", "'<a>' | escape", "'<a>' | e", "'<a>' | safe", "'a\nb' | indent(2)", "'a\nb' | indent(2, true)", "'a\n\nb' | indent", "'x' | string", "3 | string", "1.0 | string", "l | string", "'abcdefghij' | truncate(5)"],
    "percent": ["'%s-%d' % ('a', 3)", "'%s' % 5", "'%.2f' % 3.14159", "'%s' % d.k['items'][0]", "'%s' % words | trim", "'a' ~ '%s' % s ~ 'b'", "'%s' % ('%d' % 3)", "'%5.1f|%-4d|%04d|%x|%%' % (2.25, 7, 7, 255)", "'100%'", "['%s' % i, '%s' % x] | join(' % ')",
                "'%s' % -3", "'%s' % 'q%%'", "('%s, %s' % (s, q)).upper()", "'it\\'s %s' % n", "5 % 3", "'%s' % l[0] if '%' in '%' else 'no'", "'%s' % (t,)"],
    "numbers": ["1 + 2", "7 / 2", "7 // 2", "-7 // 2", "7 % 3", "-7 % 3", "2 ** 10", "2 ** -1", "1 + 1.0", "10 / 5", "3 * 1.5", "i | abs", "3.7 | int", "'12' | int", "'x' | int", "'x' | int(5)", "'ff' | int(0, 16)", "'1.5' | float", "'x' | float", "2 | float", "3.14159 | round(2)", "2.5 | round", "3.5 | round", "2.1 | round(0, 'ceil')", "2.9 | round(method='floor')",
                "[3, 1, 2] | sum", "[3, 1, 2] | max", "[3, 1, 2] | min", "1 == 1.0", "true == 1", "1 < 2 < 3", "3 > 2", "not 1", "1 and 0", "0 or 'x'", "'' or none", "1 if false", "1 if true else 2", "i is odd", "4 is even", "9 is divisibleby 3", "true + 1", "range(3) | list", "range(1, 4) | list", "range(0)|list", "1.0 | int", "true | int", "1_000"],
    "tests": ["s is string", "l is string", "l is iterable", "s is iterable", "d is iterable", "missing is iterable", "i is iterable", "l is sequence", "s is sequence", "d is sequence", "d is mapping", "l is mapping", "n is none", "n is not none", "missing is defined", "missing is undefined", "missing is none", "n is defined", "t is boolean", "i is number", "t is number", "x is number", "i is integer", "t is integer", "x is integer", "x is float", "i is float",
              "t is true", "1 is true", "f is false", "0 is false", "1 is eq 1", "1 is equalto 1", "1 is ne 2", "1 is lt 2", "3 is gt 2", "1 is in [1]", "1 in [1, 2]", "3 not in [1, 2]", "'k' in d", "'z' in d", "none in [none]", "raise_exception is callable", "s is callable", "'abc' is lower", "'ABC' is upper", "n is sameas none", "d.missing is defined", "d.k.items is defined", "d['items']", "d.get('k')", "d.get('z')", "d.get('z', 5)", "d.get('z') is none",
              "[] or 'empty'", "{} or 'empty'", "missing == none", "missing or 'd'", "missing | default('d')", "n | default('d')", "n | default('d', true)", "'' | d('x', true)", "not missing", "missing | length", "missing | list", "missing | join(',')", "missing ~ 'x'", "'a' in missing", "dict(a=1, b=2)", "dict(a=1).a"],
    "lists": ["[1, 2] + [3]", "[1, 2, 3][1:]", "[1, 2, 3][::-1]", "[1, 2, 3][:-1]", "[1, 2, 3] | first", "[] | first", "[1, 2, 3] | last", "[1, 2] | length", "[1, 2] | count", "[3, 1] | sort", "[3, 1] | sort(reverse=true)", "['b', 'A'] | sort", "[1, 1, 2] | unique | list", "['a', 'B', 'A'] | unique | list", "[1, 2, 3] | reverse | list", "[1, 2, 3] | join('-')", "['a', none, 1.5] | join(',')", "[1, 2, 3, 4] | select('even') | list", "[1, 2, 3] | reject('odd') | list", "[0, 1, ''] | select | list",
              "[{'a': 1}, {'a': 2}] | map(attribute='a') | list", "[{'a': {'b': 1}}] | map(attribute='a.b') | list", "[{'a': 1}, {}] | map(attribute='a', default=0) | list", "['x'] | map('upper') | list", "[{'r': 'u'}, {'r': 's'}] | selectattr('r', 'equalto', 'u') | list", "[{'r': 'u'}, {'r': 's'}] | rejectattr('r', 'equalto', 'u') | list", "[{'r': 'u'}, {}] | selectattr('r', 'defined') | list", "[{'r': 'u'}] | selectattr('r', 'in', ['u']) | list | length", "{'b': 1, 'a': 2} | dictsort", "{'b': 1, 'a': 2} | items | list", "[1, 2, 3] | batch(2) | list", "[1, 2, 3] | slice(2) | list", "[{'k': 1, 'v': 2}, {'k': 1, 'v': 3}] | groupby('k') | list | length", "[{'n': 2}, {'n': 1}] | sort(attribute='n')", "[1, 2].index(2)", "[1, 1].count(1)", "{'a': 1} == {'a': 1}", "[1, 2] == [1, 2]", "[[1], [2]] | sum(start=[])", "'a,b'.split(',') | map('trim') | join('|')", "d | length", "d | list", "d.k['items'][0]", "{'a': 1, 'b': 2}.items() | map('first') | list", "(1, 2) + (3,)", "[1, 2] * 2"],
    "clock": ["strftime_now('%Y-%m-%d %H:%M:%S')", "strftime_now('%d %b %Y')", "strftime_now('%A, %B %-d, %Y %I:%M %p')", "strftime_now('%j %U %w %y %% %a %z%Z|%f')", "strftime_now('')"],
}

BLOCKS_AND_SCOPES = """{% set a = 1 %}{% if true %}{% set a = 2 %}{% endif %}{{ a }}
{% set text %}
  captured {{ a }}
{% endset %}
[{{ text }}]
{% macro greet(name, greeting='Hi', punct="!") %}{{ greeting }} {{ name }}{{ punct }}{% endmacro %}
{{ greet('Ann') }} {{ greet('Bo', 'Yo') }} {{ greet('Cy', punct='?') }}
{% macro wrap(tag) %}<{{ tag }}>{{ caller() }}</{{ tag }}>{% endmacro %}
{% call wrap('b') %}inside{% endcall %}
{% filter upper %}shout{% endfilter %}
{% with x = 1, y = 2 %}{{ x + y }}{% endwith %}{{ x is defined }}
{% raw %}{{ raw }} {% if %}{% endraw %}
   {% if true %}   
  indented
   {% endif %}   
	{# a comment alone on a line #}
end {#- trimmed -#}   !
{{ 'a' if messages|length == 1 else 'b' }}{{- '' }}
  {%- if false %}x{% elif none %}y{% else %}z{% endif %}
{%+ if true %}keep indent{% endif +%}

{% for m in messages %}
  {{ m.role -}}
{% endfor %}
{% set x, y = 1, 2 %}{{ x }}{{ y }}
{% set ns = namespace(a=1) %}{% set ns.b = ns.a + 1 %}{{ ns.b }}
{% if 'a' == 'a' and not (1 > 2 or false) %}ok{% endif %}
last line

"""
