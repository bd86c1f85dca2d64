// The page: what runs when something changes, and what can be taken away.

import { byId, save } from "./elements.js";
import { empty } from "./figures.js";
import { bindPrompt, markToken, nothingChosen, showMessages, showPrompt, showStrip, showWatched } from "./prompt.js";
import { bindControls, linkToState, readAddress, settings, showState, state, writeAddress } from "./state.js";
import { ask, stop } from "./stream.js";
import {
  markCell, showCell, showCurves, showExact, showGuesses, showHeatMap, showLeftOut, showSlopes,
} from "./views.js";
import { onBranch, saveWritten, showStart, showToken } from "./write.js";

const PAUSE = 450; // milliseconds without a key, after which what was typed is read
let recipe = null; // the view as Python and as a command
let asked = 0;
let waiting = null;
let viewed = false; // whether the view on show is that of the last request

// --- Panels: what each event of an answer shows -----------------------------------------------

const panels = {
  read: {
    tokens: showTokens,
    async view(view) {
      const mine = asked;
      showPromptOf(view);
      await showHeatMap("read", view, (point, position) => lookAt({ point, position }));
      if (mine !== asked) return;
      say(`Read ${view.strip.length} tokens.`);
      // A position that is no longer among those read would be an error.
      lookAt(view.strip.some(({ position }) => position === state.position) ? {} : { position: null });
    },
  },
  patch: {
    tokens: showTokens,
    async view(view) {
      showPromptOf(view);
      showGuesses(view.guesses);
      await showHeatMap("patch", view, (point, position) => change({
        layer: Math.min(point === "final_post" ? Infinity : parseInt(point, 10), settings.n_layers - 1),
        position,
        only_position: true,
      }));
      say(view.strip.length > 1 ? "Read; now the exact effect on each token." : "");
    },
    exact(effect) {
      showExact(effect);
      say("");
    },
  },
  write: {
    start(start, from) {
      showStart(start, from);
      say("Writing.");
    },
    token: showToken,
    end: () => say("Written."),
  },
  compare: {
    tokens: showTokens,
    async view(view) {
      showPromptOf(view);
      showLeftOut(view.left_out);
      await showHeatMap("compare", view, null);
      say("");
    },
  },
};

function showTokens({ texts }) {
  showStrip(texts.map((text, position) => ({ text, position })), choosePosition);
}

function showPromptOf({ strip, watched }) {
  showStrip(strip, choosePosition);
  showWatched(watched, (id) => {
    const watch = state.watch.filter((each) => each !== id);
    const watch_text = state.watch.includes(id) ? state.watch_text : "";
    const none = !watch.length && !watch_text && state.statistic.startsWith("watched_");
    change({ watch, watch_text, ...(none ? { statistic: "top1" } : {}) });
  });
}

async function run() {
  clearTimeout(waiting);
  asked += 1;
  recipe = null;
  const from = structuredClone(state);
  const { panel } = from;
  const mine = asked;
  Object.keys(panels).forEach(stop);
  stop("cell");
  byId("error").hidden = true;
  byId("progress").removeAttribute("value");
  say(state.lens === "fitted" && panel !== "write"
    ? "Reading. The lens is fitted on its first use, which takes about a minute." : "Reading.");
  busy(true);
  let shown = Promise.resolve(); // an answer's events are shown one after the other
  viewed = false;
  const inTurn = (handler, name) => (data) => {
    if (mine === asked) viewed ||= name === "view";
    // What was asked for meanwhile may have another panel, which must not be replaced.
    shown = shown.then(() => {
      if (mine !== asked) return undefined;
      recipe = data.recipe ?? recipe;
      return handler(data, from);
    });
  };
  const failed = (data) => {
    shown = shown.catch(() => {}).then(() => (mine === asked ? fail(data) : undefined));
  };
  const handlers = Object.entries(panels[panel]).map(([name, handler]) => [name, inTurn(handler, name)]);
  const whole = await ask(panel, { ...Object.fromEntries(handlers), error: failed, progress: progressed },
    { width: Math.floor(byId("stage").clientWidth) });
  await shown;
  if (mine !== asked) return;
  busy(false);
  // What is still there belongs to the state before, unless this answer got as far as its view.
  if (!whole && !viewed && panel !== "write") stale(true);
  document.body.dataset.answers = mine;
}

// Changes the state, and shows what follows from it.
function change(values, options = {}) {
  Object.assign(state, values);
  showAll();
  writeAddress(options);
  run();
}

async function lookAt(cell) {
  Object.assign(state, cell);
  writeAddress();
  byId("error").hidden = true;
  markToken();
  markCell();
  byId("curves")?.classList.add("stale");
  const watch = ({ id }) => {
    const known = state.watch.includes(id);
    change({ watch: known ? state.watch.filter((each) => each !== id) : [...state.watch, id] });
  };
  await ask("cell", {
    cell: (found) => showCell(found, { watch, choosePoint: (point) => lookAt({ point }) }),
    curves: showCurves,
    error: fail,
  });
}

function choosePosition(position) {
  if (state.panel === "read") lookAt({ position });
  else if (state.panel === "patch") change({ position });
}

// --- What is said meanwhile -------------------------------------------------------------------

const say = (text) => { byId("status").textContent = text; };
const progressed = ({ share }) => { byId("progress").value = share; };

function fail({ message }) {
  byId("error").textContent = message;
  byId("error").hidden = false;
  say("");
}

// Whether the tokens and figures that are shown are those of another state.
function stale(on) {
  for (const part of ["strip", "views"]) byId(part).classList.toggle("stale", on);
}

function busy(on) {
  byId("progress").hidden = !on;
  byId("stop").hidden = !on;
  stale(on && state.panel !== "write");
  document.body.dataset.busy = on; // like `answers` for whoever waits for an answer
}

// --- Controls ---------------------------------------------------------------------------------

function showAll(options) {
  showState(options);
  showPrompt();
  for (const tab of tabs) {
    const chosen = tab.dataset.panel === state.panel;
    tab.setAttribute("aria-selected", chosen);
    tab.tabIndex = chosen ? 0 : -1;
  }
  byId("panel").setAttribute("aria-labelledby", `tab-${state.panel}`);
  for (const part of document.querySelectorAll("[data-for]")) {
    part.hidden = !part.dataset.for.split(" ").includes(state.panel);
  }
}

function typed(control) {
  const ofPrompt = control === undefined || control.id === "text";
  if (ofPrompt) Object.assign(state, nothingChosen);
  writeAddress();
  clearTimeout(waiting);
  // What is typed is written when that is asked for; everything else is shown as it changes.
  if (state.panel === "write") return;
  // Browsers refuse too many changes of an address in a row, so the last one may be missing.
  waiting = setTimeout(() => { writeAddress(); run(); }, PAUSE);
}

function clearViews() {
  empty(byId("views"));
  delete byId("views").dataset.panel;
}

function choosePanel(panel) {
  clearViews();
  change({ panel }, { push: true });
}

const tabs = [...document.querySelectorAll("[role=tab]")];
for (const tab of tabs) {
  tab.onclick = () => choosePanel(tab.dataset.panel);
  tab.onkeydown = ({ key }) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[key];
    const next = step && tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    if (!next) return;
    choosePanel(next.dataset.panel);
    next.focus();
  };
}

byId("write").onclick = () => change({ prefix: [] });
byId("stop").onclick = () => {
  clearTimeout(waiting);
  Object.keys(panels).forEach(stop);
  asked += 1;
  busy(false);
  stale(!viewed && state.panel !== "write");
  say("Stopped.");
};
onBranch((from, shown) => {
  writeAddress({ of: shown }); // which is what Back should return to
  change(structuredClone(from), { push: true });
  showMessages(typed, change);
  byId("write").focus({ preventScroll: true }); // what was chosen is gone, and with it the focus
});

// --- Take it away -----------------------------------------------------------------------------

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    say("Copied.");
  } catch {
    byId("code").querySelector("pre").textContent = text;
    byId("code").showModal();
  }
}

byId("copy-link").onclick = () => copy(linkToState());
const copyRecipe = (textOf) => (recipe ? copy(textOf(recipe)) : say("Nothing to copy yet."));
byId("copy-python").onclick = () => copyRecipe(({ python }) => python);
byId("copy-command").onclick = () => copyRecipe(({ command }) => command
  ?? "# The command line cannot load this model, which was handed over in Python.");
const download = (task) => {
  byId("error").hidden = true;
  return ask(task, { file: ({ name, type, content }) => save(name, type, content), error: fail });
};
byId("save-html").onclick = () => download("html");
byId("save-csv").onclick = () => {
  if (state.panel !== "write") return download("csv");
  return byId("text-clean") ? saveWritten() : say("There is no text to save.");
};
byId("save-png").onclick = () => {
  const figure = byId("heat-map");
  if (!figure?.layout) return say("There is no figure to save.");
  const { width, height } = figure.layout;
  Plotly.downloadImage(figure, { format: "png", filename: state.panel, width, height, scale: 2 });
};

// --- Begin ------------------------------------------------------------------------------------

function begin() {
  readAddress();
  showAll({ focused: true });
  showMessages(typed, change);
  // A text cannot be dimmed while another is written.
  if (state.panel === "write" || byId("views").dataset.panel !== state.panel) clearViews();
  run();
}

// In a narrow window the controls fold; in a wide one nothing could open them again.
const narrow = window.matchMedia("(max-width: 52rem)");
const fold = () => { byId("controls").open = !narrow.matches; };
narrow.addEventListener("change", fold);
fold();
bindControls(typed);
bindPrompt({ onType: typed, onChange: change });
showSlopes((layer) => {
  // A click in the figure leaves the focus where it was, and a field that has it is not rewritten.
  document.activeElement?.blur();
  change({ layer });
});
window.addEventListener("popstate", begin);
begin();
