const dark = window.matchMedia("(prefers-color-scheme: dark)");
const scheme = () => settings.templates[dark.matches ? "dark" : "light"];

async function drawAll() {
  for (const place of places) {
    const figure = dataOf(place.dataset.figure);
    await Plotly.newPlot(
      place, figure.data, { ...figure.layout, template: scheme() }, settings.config);
    // Let the page scroll and answer between two figures.
    await new Promise((done) => setTimeout(done, 0));
  }
  document.body.dataset.drawn = places.length;
}

function wear(template) {
  for (const place of places) {
    if (place.layout) Plotly.relayout(place, { template });
  }
}

dark.addEventListener("change", () => wear(scheme()));
window.addEventListener("beforeprint", () => {
  wear(settings.templates.light);
  for (const place of places) place.style.zoom = Math.min(1, 690 / place.scrollWidth);
});
window.addEventListener("afterprint", () => {
  wear(scheme());
  for (const place of places) place.style.zoom = "";
});
drawAll();
