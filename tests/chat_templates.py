"""Chat templates for tests, written in the manners of real ones."""

from __future__ import annotations

from collections.abc import Mapping

CHATML = """
{%- for message in messages %}
    {{- '<|im_start|>' ~ message['role'] ~ '\\n' ~ message['content'] ~ '<|im_end|>' ~ '\\n' }}
{%- endfor %}
{% if add_generation_prompt %}
<|im_start|>assistant
{% endif %}
"""
"""Every role alike; blocks and line ends as `trim_blocks` and `lstrip_blocks` leave them."""

HEADERS = """
{{- bos_token }}
{%- set day = strftime_now('%d %b %Y') if strftime_now is defined else '1 Jan 1970' %}
{%- set has_system = messages | selectattr('role', 'equalto', 'system') | list | length > 0 %}
{%- macro head(role) %}<|start_header_id|>{{ role }}<|end_header_id|>

{% endmacro %}
{%- if not has_system %}
    {{- head('system') ~ 'Today is ' ~ day ~ '.<|eot_id|>' }}
{%- endif %}
{%- for message in messages %}
    {{- head(message.role) }}
    {%- if message.role == 'system' %}{{- 'Today is ' ~ day ~ '.\\n\\n' }}{% endif %}
    {%- generation %}{{- message.content | trim ~ '<|eot_id|>' }}{% endgeneration %}
{%- endfor %}
{%- if add_generation_prompt %}{{- head('assistant') }}{% endif %}
"""
"""A start token, headers, what is said trimmed, and the date."""

INSTRUCTIONS = """
{%- set ns = namespace(system='') %}
{%- if messages[0]['role'] == 'system' %}
    {%- set ns.system = messages[0]['content'] | trim %}
    {%- set messages = messages[1:] %}
{%- endif %}
{{- bos_token }}
{%- for message in messages %}
    {%- if (message.role == 'user') != (loop.index0 is divisibleby 2) %}
        {{- raise_exception('roles must take turns, user first') }}
    {%- endif %}
    {%- if message.role == 'user' %}
        {%- set begin = ns.system ~ '\\n\\n' if loop.last and ns.system else '' %}
        {{- '[INST] ' ~ begin ~ message.content ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ message.content ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""
"""Turns in brackets; the system message in the last of them; no generation prompt of its own."""

NO_SYSTEM = """
{{- bos_token -}}
{%- for message in messages -%}
    {%- if message['role'] == 'system' -%}{{ raise_exception('no system role here') }}{%- endif -%}
    {%- set role = {'assistant': 'model'}[message['role']] or message['role'] -%}
    {{ '<start_of_turn>' + role + '\\n' + message['content'] | trim + '<end_of_turn>\\n' }}
{%- endfor -%}
{%- if add_generation_prompt -%}{{ '<start_of_turn>model\\n' }}{%- endif -%}
"""
"""A role with a name of its own, and no place for a system message."""

TEMPLATES: Mapping[str, str] = {
    "chatml": CHATML,
    "headers": HEADERS,
    "instructions": INSTRUCTIONS,
    "no_system": NO_SYSTEM,
}
