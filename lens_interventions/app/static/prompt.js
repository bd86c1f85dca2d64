// The prompt: a text or a chat, and under it the tokens with where each prediction settles.

import { byId, element, rove } from "./elements.js";
import { state } from "./state.js";

const ROLES = ["system", "user", "assistant"];

// Of another prompt. A position would mean another token, and a branch would continue another text.
export const nothingChosen = { position: null, prefix: [] };

export function showPrompt() {
  byId("text").hidden = state.chat;
  byId("chat").hidden = !state.chat;
  byId("text").rows = Math.min(8, Math.max(2, Math.ceil(state.text.length / 110)));
  for (const button of document.querySelectorAll("[data-chat]")) {
    button.setAttribute("aria-pressed", String(state.chat) === button.dataset.chat);
  }
}

export function bindPrompt({ onType, onChange }) {
  for (const button of document.querySelectorAll("[data-chat]")) {
    button.onclick = () => onChange({ chat: button.dataset.chat === "true", ...nothingChosen });
  }
  byId("add-message").onclick = () => {
    const last = state.messages.at(-2);
    onChange({ messages: [...state.messages, last === "user" ? "assistant" : "user", ""], ...nothingChosen });
    showMessages(onType, onChange);
  };
  rove(byId("strip"));
}

export function showMessages(onType, onChange) {
  const rows = [];
  for (let i = 0; i < state.messages.length; i += 2) {
    const at = (place) => (event) => {
      state.messages = state.messages.with(i + place, event.target.value);
      onType();
    };
    rows.push(element("div", { className: "message" },
      element("select", { oninput: at(0), "aria-label": `Role of message ${i / 2 + 1}` },
        ...ROLES.map((role) => element("option", { value: role, selected: role === state.messages[i] }, role))),
      element("textarea", { rows: 1, value: state.messages[i + 1], oninput: at(1), "aria-label": `Message ${i / 2 + 1}` }),
      element("button", {
        type: "button", "aria-label": `Remove message ${i / 2 + 1}`,
        onclick: () => {
          onChange({ messages: state.messages.toSpliced(i, 2), ...nothingChosen });
          showMessages(onType, onChange);
        },
      }, "✕")));
  }
  byId("messages").replaceChildren(...rows);
}

// `tokens` have text and position; once they are read also name, colour and ink.
export function showStrip(tokens, choose) {
  const strip = byId("strip");
  const focused = strip.contains(document.activeElement);
  strip.replaceChildren(...tokens.map((token) => {
    const settles = element("span", { className: "settles" }, token.name ?? (token.guess ? "–" : ""));
    if (token.colour) Object.assign(settles.style, { background: token.colour, color: token.ink });
    const told = token.guess === undefined ? "" : token.name === null
      ? `; the final guess ${token.guess} does not meet this even at the output`
      : `; the final guess ${token.guess} stays from layer ${token.name}`;
    return element("button", {
      type: "button", className: "token", tabIndex: -1, title: `position ${token.position}${told}`,
      "data-position": token.position,
      disabled: state.panel === "compare", onclick: () => choose(token.position),
    }, settles, element("span", { className: "piece" }, token.text));
  }));
  markToken();
  const first = strip.querySelector("[aria-pressed=true]") ?? strip.firstElementChild;
  if (first) first.tabIndex = 0;
  if (focused) first?.focus();
}

export function markToken() {
  for (const button of byId("strip").children) {
    button.setAttribute("aria-pressed", Number(button.dataset.position) === state.position);
  }
}

export function showWatched(tokens, forget) {
  byId("watched").replaceChildren(...tokens.map((token) => element("button", {
    type: "button", "aria-label": `Stop watching ${token.text}`, onclick: () => forget(token.id),
  }, `${token.text} ✕`)));
}

