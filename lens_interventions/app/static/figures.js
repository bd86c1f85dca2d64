// The library's figures, in the theme of the page, with cells that can be chosen.

import { byId } from "./elements.js";
import { settings } from "./state.js";

const dark = window.matchMedia("(prefers-color-scheme: dark)");
const template = () => settings.templates[dark.matches ? "dark" : "light"];
const drawn = new Set();
const config = { ...settings.config, displayModeBar: false };

export async function draw(place, figure) {
  const layout = { ...figure.layout, template: template() };
  await Plotly.react(place, figure.data, layout, config);
  drawn.add(place);
}

dark.addEventListener("change", () => {
  for (const place of drawn) Plotly.relayout(place, { template: template() });
});

// Empties an element. A figure that plotly is not told of would stay in memory.
export function empty(container, ...children) {
  for (const place of [...drawn].filter((each) => container.contains(each))) {
    Plotly.purge(place);
    drawn.delete(place);
  }
  container.replaceChildren(...children);
}

const heatMaps = (place) => place.data.filter((trace) => trace.type === "heatmap");
const columnOf = (trace, position) => trace.customdata[0].findIndex((items) => items[0] === position);

// Position in the text of a column: the first of the numbers that appear over a cell. Over a
// difference there is none, but its columns are those of the first heat map.
function positionOf(place, trace, row, column) {
  const source = trace.coloraxis ? heatMaps(place)[0] : trace;
  return source.customdata[row][column][0];
}

// Cells by mouse, and by arrow keys and Enter. `choose(row, position)` gets the row's index.
export function choosable(place, choose) {
  let trace = heatMaps(place)[0];
  let cell = null;
  const pick = () => choose(cell.row, positionOf(place, trace, cell.row, cell.column));
  place.removeAllListeners?.("plotly_click");
  place.on("plotly_click", ({ points: [point] }) => {
    if (point?.data.type !== "heatmap") return;
    trace = point.data;
    cell = { row: point.y, column: point.x };
    mark(place, trace, cell);
    pick();
  });
  place.tabIndex = 0;
  place.setAttribute("role", "application");
  place.setAttribute("aria-label", "Heat map of layers and tokens. Arrow keys move, Enter chooses.");
  place.onkeydown = (event) => {
    const step = { ArrowUp: [1, 0], ArrowDown: [-1, 0], ArrowRight: [0, 1], ArrowLeft: [0, -1] }[event.key];
    const [rows, columns] = [trace.z.length, trace.z[0].length];
    if (step) {
      cell ??= { row: rows - 1, column: columns - 1 };
      const column = cell.column + step[1];
      // A long prompt goes on in the next heat map.
      const all = heatMaps(place);
      const next = column in trace.z[0] ? trace : all[all.indexOf(trace) + step[1]];
      if (next) {
        const goesOn = next !== trace;
        trace = next;
        cell = {
          row: Math.min(rows - 1, Math.max(0, cell.row + step[0])),
          column: !goesOn ? column : step[1] > 0 ? 0 : next.z[0].length - 1,
        };
      }
      mark(place, trace, cell);
      const name = (axis, at) => place.layout[axis.replace(/^[xy]/, "$&axis")].ticktext[at];
      byId("status").textContent =
        `Layer ${name(trace.yaxis ?? "y", cell.row)}, token ${name(trace.xaxis ?? "x", cell.column)}`;
    } else if (event.key === "Enter" && cell) pick();
    else return;
    event.preventDefault();
  };
  return {
    show(row, position) {
      // The one that was clicked, if it has the position; over a difference no position stands.
      const all = [trace, ...heatMaps(place)].filter((each) => !each.coloraxis);
      trace = all.find((each) => columnOf(each, position) >= 0) ?? trace;
      const column = trace.coloraxis ? -1 : columnOf(trace, position);
      cell = row < 0 || column < 0 ? null : { row, column };
      mark(place, trace, cell);
    },
  };
}

function mark(place, trace, cell) {
  const shapes = cell === null ? [] : [{
    type: "rect", xref: trace.xaxis ?? "x", yref: trace.yaxis ?? "y",
    x0: cell.column - 0.5, x1: cell.column + 0.5, y0: cell.row - 0.5, y1: cell.row + 0.5,
    line: { color: "#d55e00", width: 3 },
  }];
  Plotly.relayout(place, { shapes });
}
