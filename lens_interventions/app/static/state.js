// The state of the page, which stands in its address after the "#", without what has its default.

export const settings = JSON.parse(document.getElementById("settings").textContent);
export const state = structuredClone(settings.defaults);

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export function changed(values = state) {
  return Object.fromEntries(
    Object.entries(values).filter(([name, value]) => !same(value, settings.defaults[name])));
}

export function readAddress() {
  Object.assign(state, structuredClone(settings.defaults));
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in settings.defaults)) continue;
    try {
      state[name] = typeof settings.defaults[name] === "string" ? text : JSON.parse(text);
    } catch {
      // Half of a link: the default stays.
    }
  }
}

export function writeAddress({ push = false } = {}) {
  const values = Object.entries(changed()).map(([name, value]) =>
    [name, typeof value === "string" ? value : JSON.stringify(value)]);
  const pairs = values.map((pair) => pair.map(encodeURIComponent).join("="));
  const address = `#${pairs.join("&")}`;
  if (address === (location.hash || "#")) return;
  history[push ? "pushState" : "replaceState"](null, "", address);
}

// Controls show a field of the state, and write it.

const controls = () => document.querySelectorAll("[data-state]");

export function showState() {
  for (const control of controls()) {
    const value = state[control.dataset.state];
    if (control === document.activeElement && control.type !== "checkbox") continue;
    if (control.type === "checkbox") control.checked = Boolean(value);
    else control.value = value ?? "";
  }
}

function read(control) {
  if (control.type === "checkbox") return control.checked;
  if (control.type !== "number") return control.value;
  // What is no number stays a text, so that the server says what it wanted.
  if (control.value === "") return control.validity.badInput ? "not a number" : emptied(control);
  return Number(control.value);
}

const emptied = (control) => (control.placeholder ? null : settings.defaults[control.dataset.state]);

export function bindControls(onChange) {
  for (const control of controls()) {
    control.addEventListener("input", () => {
      state[control.dataset.state] = read(control);
      onChange(control);
    });
  }
}
