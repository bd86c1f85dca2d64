// What the panels Read, Patch and Compare show of an answer.

import { byId, element, guesses, percent } from "./elements.js";
import { choosable, draw } from "./figures.js";
import { settings, state } from "./state.js";

const views = byId("views");
let heatMap = null; // the one on show, with what marks its cells

// Keeps the elements of a panel while its numbers change, so that nothing jumps.
function places(panel) {
  if (views.dataset.panel !== panel) {
    views.dataset.panel = panel;
    views.replaceChildren(...["figure", "more"].map((name) =>
      element("div", { className: name === "figure" ? "scroll" : "view", id: name })));
    byId("figure").append(element("div", { id: "heat-map" }));
    heatMap = null;
  }
  return { figure: byId("heat-map"), more: byId("more") };
}

export async function showHeatMap(panel, view, choose) {
  const { figure } = places(panel);
  await draw(figure, view.figure);
  heatMap = choosable(figure, (row, position) => choose(view.points[row], position));
  heatMap.points = view.points;
  if (panel === "read") markCell();
}

export function markCell() {
  if (heatMap && state.position !== null) {
    heatMap.show(heatMap.points.indexOf(state.point), state.position);
  }
}

export function showCell(cell, { watch, choosePoint }) {
  const { more } = places("read");
  const points = element("select", { id: "point", onchange: (event) => choosePoint(event.target.value) },
    ...cell.points.map((point) => element("option", { value: point, selected: point === cell.point },
      { "0_pre": "input", final_post: "final" }[point] ?? point.replace("_pre", ""))));
  const rows = cell.statistics.map(({ label, value, log_prob }) => element("tr", {},
    element("th", { scope: "row" }, label),
    element("td", { className: "number" }, String(value)),
    element("td", { className: "number" }, log_prob === null ? "" : String(log_prob))));
  const curves = byId("curves") ?? element("div", { id: "curves", className: "columns" },
    ...["leaders", "statistics"].map((id) =>
      element("div", { className: "scroll" }, element("div", { id, className: "chart" }))));
  more.replaceChildren(
    element("div", { className: "bar" },
      element("h2", {}, `Position ${cell.position}: ${cell.token}`),
      element("label", { htmlFor: "point" }, "at layer"), points),
    element("div", { className: "columns" },
      element("section", {}, element("h3", {}, "Likeliest next tokens"),
        guesses(cell.likeliest, watch, "Watch this token through the layers")),
      element("section", {}, element("h3", {}, "Statistics"),
        element("table", {}, element("thead", {}, element("tr", {},
          ...["", "value", "log-prob"].map((name, i) =>
            element("th", { scope: "col", className: i ? "number" : "" }, name)))),
        element("tbody", {}, ...rows)))),
    curves);
}

export async function showCurves(figures) {
  for (const id of ["leaders", "statistics"]) if (byId(id)) await draw(byId(id), figures[id]);
}

export function showGuesses(found) {
  const { more } = places("patch");
  const columns = Object.entries(found).map(([name, likeliest]) => element("section", {},
    element("h3", {}, `What comes next, ${name}`), guesses(likeliest)));
  more.replaceChildren(element("div", { className: "columns" }, ...columns),
    element("p", { className: "hint" },
      "In the patched figure every position but the last was written with the very token that it "
      + "predicts, so that its upper layers see the answer. The numbers below are exact: each token "
      + "is predicted as a sampler would predict it, with the positions before it patched."),
    element("div", { id: "exact" }));
}

export function showExact({ texts, clean, patched, nats }) {
  const change = nats[1] - nats[0];
  const tokens = texts.slice(1).map((text, i) => {
    const difference = patched[i] - clean[i];
    const kind = Math.abs(difference) < 0.05 ? "" : difference > 0 ? "better" : "worse";
    const shown = Math.abs(difference) < 0.005 ? "0" : difference.toFixed(2).replace("-", "−");
    return element("div", {
      className: `effect ${kind}`,
      title: `clean ${percent(Math.exp(clean[i]))}, patched ${percent(Math.exp(patched[i]))}`,
    }, element("span", {}, difference >= 0.005 ? `+${shown}` : shown), text);
  });
  byId("exact")?.replaceChildren(
    element("h3", {}, "What the patch does to the log-probability of each token"),
    element("p", {}, `${nats[0].toFixed(3)} nats a token without the patch, ${nats[1].toFixed(3)} with it `
      + `(${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(3)}).`),
    element("div", { className: "effects" }, ...tokens));
}

export function showLeftOut(pair) {
  const { more } = places("compare");
  const lines = (pair ?? []).map((texts, i) => texts.length === 0 ? null : element("p", { className: "quiet" },
    `Without a partner in the ${["second", "first"][i]} prompt: ${texts.join(" ")}`));
  more.replaceChildren(...lines.filter((line) => line !== null));
}

export async function showSlopes(choose) {
  if (!settings.slopes) return;
  await draw(byId("slopes"), settings.slopes);
  byId("slopes").on("plotly_click", ({ points: [point] }) => choose(Number(point.y)));
}
