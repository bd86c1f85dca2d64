// Asking the server: a request holds the whole state, the answer is a stream of events.

import { changed, state } from "./state.js";

const tab = crypto.randomUUID();
const running = new Map();

const GONE = "The explorer does not answer. Start it again and open the address that it prints; "
  + "what stands after the # of this address still works there.";

const STOPPED = "The explorer was stopped before this was finished. Start it again and open the "
  + "address that it prints; what stands after the # of this address still works there.";

export function stop(task) {
  running.get(task)?.abort();
}

// Calls `on[event](data)` for each event. A newer request for the same task ends the older one.
// The request is for the state of the page, or another one, with the fields in `change`.
// Resolves to whether the answer came to its end.
export async function ask(task, on, change = {}, from = state) {
  stop(task);
  const control = new AbortController();
  running.set(task, control);
  let whole = true;
  const handle = (name, data) => {
    if (control.signal.aborted) return;
    if (name === "cancelled") { // not by this page, or it would no longer listen
      handle("error", { message: STOPPED });
      return;
    }
    if (name === "error") whole = false;
    on[name]?.(data);
  };
  try {
    const response = await fetch(`run/${task}`, {
      method: "POST",
      headers: { "content-type": "application/json" },
      body: JSON.stringify({ tab, state: { ...changed(from), ...change } }),
      signal: control.signal,
    });
    if (response.ok) await eachEvent(response.body, handle);
    else handle("error", { message: await refusal(response) });
  } catch (error) {
    if (error.name === "AbortError") return false;
    if (!(error instanceof TypeError)) throw error;
    handle("error", { message: GONE });
  } finally {
    if (running.get(task) === control) running.delete(task);
  }
  return whole && !control.signal.aborted;
}

async function refusal(response) {
  const text = await response.text();
  try {
    return JSON.parse(text).message;
  } catch {
    return text;
  }
}

async function eachEvent(body, handle) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = ""; ;) {
    const { value, done } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      const [name, data] = event.split("\n");
      handle(name.slice("event: ".length), JSON.parse(data.slice("data: ".length)));
    }
  }
}
