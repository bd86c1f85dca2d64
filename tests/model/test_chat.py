"""Conversations are laid out by the tokenizer's template, wherever a text may stand."""

import pytest
import torch

import lens_interventions as li
from tests.support.tiny import tiny_bridge

TEMPLATE = (
    "{% for message in messages %}{% if message['role'] == 'system' %}"
    "{{ raise_exception('no system here') }}{% endif %}"
    "{{ message['role'][0] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'a:' }}{% endif %}"
)
USER = {"role": "user", "content": "people say"}


@pytest.fixture(scope="module")
def chatty():
    """A tiny Llama whose tokenizer has a chat template."""
    bridge = tiny_bridge("llama")
    bridge.tokenizer.chat_template = TEMPLATE
    return bridge


def ids(bridge, text):
    return bridge.tokenizer(text, add_special_tokens=False)["input_ids"]


def test_the_answer_is_begun_unless_the_last_message_is_it(chatty):
    answer = {"role": "assistant", "content": "plasma"}
    assert li.chat_tokens(chatty, [USER]) == ids(chatty, "u: people say\na:")
    assert li.chat_tokens(chatty, [USER, answer]) == ids(chatty, "u: people say\na: plasma\n")


def test_several_conversations_or_a_message_alone_are_no_conversation(chatty, as_users_run):
    for given in ([[USER], [USER]], USER):
        with pytest.raises(ValueError, match="a conversation is a list of messages"):
            li.chat_tokens(chatty, given)
    with pytest.raises(ValueError, match="a conversation is a list of messages"):
        li.generate(chatty, messages=USER, max_new_tokens=1)


def test_messages_stand_in_the_place_of_a_text(chatty):
    tokens = li.chat_tokens(chatty, [USER])
    read = li.logit_lens(chatty, messages=[USER])
    torch.testing.assert_close(read.entropy, li.logit_lens(chatty, tokens).entropy)
    said = li.generate(chatty, messages=[[USER], [USER, USER]], max_new_tokens=3)
    alone = li.generate(chatty, tokens, max_new_tokens=3)
    assert said.tokens.shape == (2, 3)
    assert said.texts[0] == alone.texts[0]


PARTS = (
    "{% for message in messages %}{% for part in message['content'] or [] %}"
    "{{ part['text'] }}{% endfor %}.{% endfor %}"
)


def test_content_may_be_parts_or_nothing():
    bridge = tiny_bridge("llama")
    bridge.tokenizer.chat_template = PARTS
    said = {"role": "user", "content": [{"type": "text", "text": "people say"}, {"type": "image"}]}
    nothing = {"role": "assistant", "content": None}
    assert li.chat_tokens(bridge, [said, nothing]) == ids(bridge, "people say..")
    broken = {"role": "user", "content": [{"type": "text", "text": "ab\ud800"}]}
    with pytest.raises(ValueError, match="half of a surrogate pair"):
        li.chat_tokens(bridge, [broken])


def test_content_that_the_template_cannot_lay_out_is_refused(chatty):
    with pytest.raises(ValueError, match="chat template refuses these messages"):
        li.chat_tokens(chatty, [{"role": "user", "content": None}])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "there is nothing to read"),
        ({"text_or_tokens": "say", "messages": [USER]}, "give only one of them"),
        ({"messages": []}, "a conversation is a list of messages"),
        ({"messages": [{"role": "user"}]}, "a conversation is a list of messages"),
        ({"messages": [{"role": "system", "content": "say"}]}, "no system here"),
    ],
)
def test_what_is_no_conversation_is_refused(chatty, arguments, message):
    with pytest.raises(ValueError, match=message):
        li.logit_lens(chatty, **arguments)


def test_a_tokenizer_without_a_template_says_so(llama):
    with pytest.raises(ValueError, match="has no chat template"):
        li.chat_tokens(llama, [USER])
