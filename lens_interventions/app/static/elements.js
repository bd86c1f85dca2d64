// Elements of the page. Texts become text nodes: nothing that a model or a user writes is markup.

export const byId = (id) => document.getElementById(id);

export function element(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name in made) made[name] = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child !== null));
  return made;
}

export const percent = (p) =>
  p >= 0.9995 ? "100%" : p >= 0.0995 ? `${(100 * p).toFixed(1)}%` : p >= 0.0001 ? `${(100 * p).toFixed(2)}%` : "< 0.01%";

// Likeliest tokens with a bar each; `choose(token)` if one can be chosen.
export function guesses(likeliest, choose, label) {
  const rows = likeliest.map((token) => {
    const name = choose
      ? element("button", { type: "button", title: label, value: token.id, onclick: () => choose(token) }, token.text)
      : element("span", {}, token.text);
    const bar = element("span", {});
    bar.style.width = `${100 * token.probability}%`;
    return element("div", { className: "guess" }, name,
      element("div", { className: "meter" }, bar),
      element("span", { className: "share" }, percent(token.probability)));
  });
  return element("div", {}, ...rows);
}

// One stop for the tab key among many buttons; arrows move between them.
export function rove(container) {
  container.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    const buttons = [...container.querySelectorAll("button, [role=button]")];
    const next = buttons[buttons.indexOf(document.activeElement) + step];
    if (!step || !next) return;
    event.preventDefault();
    for (const each of buttons) each.tabIndex = each === next ? 0 : -1;
    next.focus();
  });
}

export function save(name, type, content) {
  const url = URL.createObjectURL(new Blob([content], { type }));
  element("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 1000);
}
