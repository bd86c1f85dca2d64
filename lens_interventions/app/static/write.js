// The panel Write: two texts that grow, and what else could have come at any of their tokens.

import { byId, element, guesses, percent, rove, save } from "./elements.js";
import { empty } from "./figures.js";
import { ask } from "./stream.js";

const ARMS = { clean: "Without the patch", patched: "With the patch" };
let written = {};
let shown = null; // the state that was written for, as settings may have changed since
let begun = []; // the text of each token of the branch, with which both texts begin

export function showStart({ prefix }, state) {
  written = { clean: [], patched: [] };
  shown = state;
  begun = prefix;
  const views = byId("views");
  views.dataset.panel = "write";
  const prompt = state.chat ? `… ${state.messages.at(-1)}\n\n` : state.text;
  empty(views, element("div", { className: "columns" },
    ...Object.entries(ARMS).map(([arm, title]) => {
      const text = element("div", { className: "text", id: `text-${arm}`, role: "toolbar", "aria-label": title },
        element("span", { className: "begun" }, prompt),
        element("span", { className: "forced", title: "the branch that was chosen" }, prefix.join("")));
      rove(text);
      return element("section", { className: "arm" }, element("h2", {}, title), text,
        element("p", { className: "quiet", id: `facts-${arm}` }));
    })),
  element("p", { className: "hint" }, "The more colour behind a token, the more it surprised the model. "
    + "⟲ begins a loop; its later rounds are dotted. Choose a token to see what else could have come, "
    + "and to go on from there."),
  element("div", { id: "alternatives", hidden: true }));
}

export function showToken({ arm, id, text, log_prob, loops }) {
  const tokens = written[arm];
  const choose = () => showAlternatives(arm, tokens.indexOf(token));
  // A button element would not break over lines as text does.
  const button = element("span", {
    role: "button", className: "written", tabIndex: tokens.length ? -1 : 0,
    title: `${(-log_prob).toFixed(2)} nats, ${percent(Math.exp(log_prob))}`,
    onclick: choose,
    onkeydown: (event) => {
      if (event.key !== "Enter" && event.key !== " ") return;
      event.preventDefault(); // the page would scroll
      choose();
    },
  }, text);
  button.style.setProperty("--nats", Math.min(-log_prob, 10));
  const token = { id, text, log_prob, button };
  tokens.push(token);
  byId(`text-${arm}`).append(button);
  if (loops) markLoops(arm, loops);
  const nats = -tokens.reduce((sum, each) => sum + each.log_prob, 0) / tokens.length;
  byId(`facts-${arm}`).textContent = `${tokens.length} tokens, ${nats.toFixed(2)} nats each`
    + (loops ?? written[arm].loops ?? []).map(([start, end, period]) =>
      `; a loop of ${period} tokens, ${((end - start) / period).toFixed(1)} times round`).join("");
}

function markLoops(arm, loops) {
  written[arm].loops = loops;
  // Loops count from the first token after the prompt, the branch included.
  const before = shown.prefix.length;
  written[arm].forEach(({ button }, i) => {
    const place = i + before;
    const loop = loops.find(([start, end]) => start <= place && place < end);
    button.classList.toggle("loop", Boolean(loop));
    button.classList.toggle("start", place === loop?.[0]);
    button.classList.toggle("again", Boolean(loop) && place >= loop[0] + loop[2]);
  });
}

let branch = () => {};
export const onBranch = (go) => { branch = go; };

async function showAlternatives(arm, index) {
  const box = byId("alternatives");
  document.querySelectorAll(".written").forEach((each) => each.setAttribute("aria-pressed", "false"));
  const chosen = written[arm][index];
  chosen.button.setAttribute("aria-pressed", "true");
  const of = shown;
  const prefix = [...of.prefix, ...written[arm].slice(0, index).map(({ id }) => id)];
  box.hidden = false;
  box.replaceChildren(element("p", {}, "…"));
  await ask("alternatives", {
    alternatives: ({ likeliest }) => box.replaceChildren(
      element("h3", {}, `What could have come here, ${ARMS[arm].toLowerCase()}`),
      guesses(likeliest, ({ id }) => branch({ ...of, prefix: [...prefix, id] }, of), "Go on from here with this token")),
    error: ({ message }) => box.replaceChildren(element("p", {}, message)),
  }, { arm, prefix }, of);
  box.scrollIntoView({ block: "nearest" });
}

export function saveWritten() {
  const cell = (text) => `"${String(text).replaceAll('"', '""')}"`;
  // The tokens of the branch were chosen, so neither arm gave them a probability.
  const branched = shown.prefix.map((id, i) => ({ id, text: begun[i], log_prob: "" }));
  const rows = Object.entries(written).flatMap(([arm, tokens]) =>
    [...branched, ...tokens].map(({ id, text, log_prob }, step) =>
      [cell(arm), step, id, cell(text), log_prob].join(",")));
  save("write.csv", "text/csv", ["arm,step,token_id,token,log_prob", ...rows, ""].join("\n"));
}
