"""The Llama 2 chat format once more, as the Jinja template that other software reads (`chat_template.jinja`).

`ayni.text.chat` is what ayni itself uses; a test holds the two equal, token by token.
"""

CHAT_TEMPLATE = """\
{%- set tags = ['[INST]', '[/INST]', '<<SYS>>', '<</SYS>>'] -%}
{%- for message in messages -%}
  {%- for tag in tags -%}
    {%- if tag in message['content'] -%}
      {{- raise_exception('a message must not contain ' + tag) -}}
    {%- endif -%}
  {%- endfor -%}
{%- endfor -%}
{%- if messages[0]['role'] == 'system' -%}
  {%- set system = '<<SYS>>\\n' + messages[0]['content'] + '\\n<</SYS>>\\n\\n' -%}
  {%- set turns = messages[1:] -%}
{%- else -%}
  {%- set system = '' -%}
  {%- set turns = messages -%}
{%- endif -%}
{%- for message in turns -%}
  {%- if message['role'] != ('user' if loop.index0 % 2 == 0 else 'assistant') -%}
    {{- raise_exception('roles must alternate: user, assistant, user, ...') -}}
  {%- endif -%}
  {%- if message['role'] == 'user' -%}
    {%- set content = (system if loop.first else '') + message['content'] -%}
    {{- bos_token + '[INST] ' + content | trim + ' [/INST]' -}}
  {%- else -%}
    {{- ' ' + message['content'] | trim + ' ' + eos_token -}}
  {%- endif -%}
{%- endfor -%}
"""
