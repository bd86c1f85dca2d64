// What the panels Read, Patch and Compare show of an answer.

import { byId, element, guesses, percent } from "./elements.js";
import { choosable, draw, empty } from "./figures.js";
import { settings, state } from "./state.js";

const views = byId("views");
let heatMap = null; // the one on show, with what marks its cells

// Keeps the elements of a panel while its numbers change, so that nothing jumps.
function places(panel) {
  if (views.dataset.panel !== panel) {
    views.dataset.panel = panel;
    const figure = element("div", { className: "scroll", id: "figure" }, element("div", { id: "heat-map" }));
    const more = element("div", { className: "view", id: "more" });
    // Three heat maps stand below what they come to.
    empty(views, ...(panel === "patch" ? [more, figure] : [figure, more]));
    heatMap = null;
  }
  return { figure: byId("heat-map"), more: byId("more") };
}

// Without `choose`, cells cannot be chosen.
export async function showHeatMap(panel, view, choose) {
  const { figure } = places(panel);
  await draw(figure, view.figure);
  if (!choose) return;
  heatMap = choosable(figure, (row, position) => choose(view.points[row], position));
  heatMap.points = view.points;
  markCell();
}

export function markCell() {
  const point = { read: state.point, patch: `${state.layer}_pre` }[state.panel];
  if (heatMap && point && state.position !== null) {
    heatMap.show(heatMap.points.indexOf(point), state.position);
  }
}

export function showCell(cell, { watch, choosePoint }) {
  const { more } = places("read");
  const focused = more.contains(document.activeElement) ? document.activeElement : null;
  const points = element("select", { id: "point", onchange: (event) => choosePoint(event.target.value) },
    ...cell.points.map(([point, name]) =>
      element("option", { value: point, selected: point === cell.point }, name)));
  const rows = cell.statistics.map(({ label, value, log_prob }) => element("tr", {},
    element("th", { scope: "row" }, label),
    element("td", { className: "number" }, String(value)),
    element("td", { className: "number" }, log_prob === null ? "" : String(log_prob))));
  const curves = byId("curves") ?? element("div", { id: "curves" },
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
  // Whoever chose a layer or a token with a key goes on from there.
  if (focused?.id === "point") points.focus();
  else if (focused?.value) more.querySelector(`button[value="${focused.value}"]`)?.focus();
}

export async function showCurves(figures) {
  for (const id of ["leaders", "statistics"]) if (byId(id)) await draw(byId(id), figures[id]);
  byId("curves")?.classList.remove("stale");
}

export function showGuesses(found) {
  const { more } = places("patch");
  const columns = Object.entries(found).map(([name, likeliest]) => element("section", {},
    element("h3", {}, `What comes next, ${name}`), guesses(likeliest)));
  more.replaceChildren(element("div", { className: "columns" }, ...columns),
    element("div", { id: "exact" }),
    element("p", { className: "hint" },
      "In the figure below, a patched position has been given the very token that it predicts, so "
      + "that the upper layers of its column see the answer. The numbers above are exact: each token "
      + "is predicted as a sampler would predict it, with the positions before it patched."));
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
