// The state of the page, which stands in its address after the "#", without what has its default.

export const settings = JSON.parse(document.getElementById("settings").textContent);
export const state = structuredClone(settings.defaults);

const same = (a, b) => JSON.stringify(a) === JSON.stringify(b);

export function changed(values) {
  return Object.fromEntries(
    Object.entries(values).filter(([name, value]) => !same(value, settings.defaults[name])));
}

export function readAddress() {
  Object.assign(state, structuredClone(settings.defaults));
  for (const [name, text] of new URLSearchParams(location.hash.slice(1))) {
    if (!(name in settings.defaults)) continue;
    const before = settings.defaults[name];
    try {
      const value = typeof before === "string" ? text : JSON.parse(text);
      // The server says what is wrong with other values; without a list, the page could not ask.
      if (Array.isArray(value) || !Array.isArray(before)) state[name] = value;
    } catch {
      // Half of a link: the default stays.
    }
  }
  // Without a tab or buttons for them, nothing on the page could leave these.
  if (!document.getElementById(`tab-${state.panel}`)) state.panel = settings.defaults.panel;
  state.chat &&= settings.has_chat;
}

function addressOf(values) {
  const pairs = Object.entries(changed(values)).map(([name, value]) =>
    [name, typeof value === "string" ? value : JSON.stringify(value)]);
  return `#${pairs.map((pair) => pair.map(encodeURIComponent).join("=")).join("&")}`;
}

// A link to the state, of which the address may lack the last changes.
export function linkToState() {
  try {
    return location.href.split("#")[0] + addressOf(state);
  } catch {
    return location.href; // half a character cannot be in a link
  }
}

export function writeAddress({ push = false, of = state } = {}) {
  try {
    const address = addressOf(of);
    if (address === (location.hash || "#")) return;
    history[push ? "pushState" : "replaceState"](null, "", address);
  } catch (error) {
    // Half a character cannot be in an address, and browsers refuse too many changes in a row.
    if (!(error instanceof URIError || error.name === "SecurityError")) throw error;
  }
}

// Controls show a field of the state, and write it.

const controls = () => document.querySelectorAll("[data-state]");

// The control that has the focus is being typed into, unless the whole state is another one.
export function showState({ focused = false } = {}) {
  for (const control of controls()) {
    const value = state[control.dataset.state];
    if (!focused && control === document.activeElement && control.type !== "checkbox") continue;
    if (control.type === "checkbox") {
      control.checked = Boolean(value);
      control.indeterminate = value === null;
    } else control.value = value ?? "";
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
