"""Conversations as token ids, in the chat template of a model's tokenizer."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

from .kinds import ReadableModel
from .tokens import TextOrTokens, require_unicode

Text = TypeVar("Text")

Message = Mapping[str, Any]
"""Who speaks, and what: `{"role": "user", "content": "Hello"}`.

The content may have other forms that the template knows, such as a list of parts.
"""


def chat_tokens(bridge: ReadableModel, messages: Sequence[Message]) -> list[int]:
    """The ids of a conversation, in the template that the model was trained with.

    `messages` are as in `tokenizer.apply_chat_template`, `[{"role": "user", "content": "Hello"}]`.
    The template begins the answer, or ends the last message if that is the assistant's.

    Raises `ValueError` if there is no message, or several conversations, the tokenizer has no
    template, or the template refuses the messages.
    """
    from jinja2 import TemplateError

    tokenizer: Any = bridge.tokenizer
    if getattr(tokenizer, "chat_template", None) is None:
        raise ValueError(
            f"messages are for a chat model, and the tokenizer of {bridge.cfg.model_name} has no "
            "chat template: choose a model whose tokenizer has one, give a text instead of "
            "messages, or set bridge.tokenizer.chat_template"
        )
    whole = isinstance(messages, Sequence) and all(isinstance(each, Mapping) for each in messages)
    if not messages or not whole or not all({"role", "content"} <= set(each) for each in messages):
        raise ValueError(
            "a conversation is a list of messages, such as "
            f'[{{"role": "user", "content": "Hello"}}]; got {messages!r:.80}'
        )
    for message in messages:
        for text in _texts(message["content"]):
            require_unicode(text)
    try:
        return tokenizer.apply_chat_template(
            [dict(message) for message in messages],
            add_generation_prompt=messages[-1]["role"] != "assistant",
            return_dict=False,
        )
    except (TemplateError, TypeError) as error:
        raise ValueError(f"the model's chat template refuses these messages: {error}") from error


def _texts(content: Any) -> Iterator[str]:
    """The texts of a message, whose content may be a list of parts, or None."""
    if isinstance(content, str):
        yield content
    elif isinstance(content, Sequence):
        yield from (
            part["text"]
            for part in content
            if isinstance(part, Mapping) and isinstance(part.get("text"), str)
        )


def text_or_messages(
    bridge: ReadableModel,
    text: Text | None,
    messages: Sequence[Message] | Sequence[Sequence[Message]] | None,
) -> Text | TextOrTokens:
    """The text, or the ids of one conversation or of several.

    Raises `ValueError` if both or neither are given, and in the cases of `chat_tokens`.
    """
    if text is not None and messages is not None:
        raise ValueError("got both a text or tokens and messages=: give only one of them")
    if text is not None:
        return text
    if messages is None:
        raise ValueError("there is nothing to read: give a text or tokens, or messages=")
    several = isinstance(messages, Sequence) and messages and isinstance(messages[0], Sequence)
    if several and not isinstance(messages[0], str):
        return [chat_tokens(bridge, chat) for chat in messages]  # type: ignore[arg-type]
    return chat_tokens(bridge, messages)  # type: ignore[arg-type]
