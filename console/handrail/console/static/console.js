"use strict";
// Everything works without this script, by links and forms. It adds copying, local times, and news without a reload.

const LIVE_HEADER = "handrail-live";

// Copying.

document.addEventListener("click", async (event) => {
  const button = event.target.closest("[data-copy]");
  if (!button) return;
  const label = button.textContent;
  try {
    await navigator.clipboard.writeText(button.dataset.copy);
    button.textContent = "copied";
  } catch {
    button.textContent = "can't copy here";
  }
  setTimeout(() => { button.textContent = label; }, 1500);
});

// Times: UTC as served, or those of this machine.

let local = localStorage.getItem("times") === "local";

function showTimes() {
  for (const time of document.querySelectorAll("time")) {
    time.dataset.utc ??= time.textContent;
    const at = new Date(time.dateTime);
    const sameDay = at.toDateString() === new Date().toDateString();
    const day = sameDay || "seconds" in time.dataset ? {} : { day: "numeric", month: "short" };
    const seconds = "seconds" in time.dataset ? { second: "2-digit" } : {};
    const parts = { hour: "2-digit", minute: "2-digit", hourCycle: "h23", ...seconds, ...day };
    time.textContent = local ? at.toLocaleString(undefined, parts) : time.dataset.utc;
  }
  const zone = document.getElementById("zone");
  if (zone) zone.textContent = local ? "show times in UTC" : "show local times";
}

document.addEventListener("click", (event) => {
  if (event.target.id !== "zone") return;
  local = !local;
  localStorage.setItem("times", local ? "local" : "utc");
  showTimes();
});

function enhance() {
  for (const hidden of document.querySelectorAll("button.copy[hidden]")) hidden.hidden = false;
  // A wide graph is first seen at its middle, where it begins.
  for (const graph of document.querySelectorAll(".graph")) {
    graph.scrollLeft = (graph.scrollWidth - graph.clientWidth) / 2;
  }
  showTimes();
}

// Time travel: the slider shows its place, and goes there when it is let go.

const slider = document.getElementById("at");
if (slider) {
  slider.form.querySelector("button").hidden = true;
  slider.addEventListener("input", () => {
    document.getElementById("at-shown").textContent = `${slider.value} of ${slider.max}`;
  });
  slider.addEventListener("change", () => {
    const address = new URL(location.href);
    if (slider.value === slider.max) address.searchParams.delete("at");
    else address.searchParams.set("at", slider.value);
    location.assign(address);
  });
}

// News: what is live on the page is replaced, unless somebody is pointing at it; then the page says how much is new.
// A flow's page hears from the server that its flow moved. Lists ask again and again, while they are seen.

const stream = document.getElementById("live");
const view = document.getElementById("view");
const news = document.getElementById("news");
let waiting = 0;
let planned = null;
let source = null;
let served = rowsOf(view);

function isInUse() {
  return view.matches(":hover") || view.contains(document.activeElement);
}

function rowsOf(part) {
  return new Map([...(part?.querySelectorAll("[data-row]") ?? [])].map((row) => [row.dataset.row, row.innerHTML]));
}

class Stale extends Error {}

async function load() {
  const answer = await fetch(location.href, { headers: { [LIVE_HEADER]: "1" }, redirect: "manual" });
  if (answer.type === "opaqueredirect") throw new Stale("Your session is over. Reload the page to sign in.");
  const page = new DOMParser().parseFromString(await answer.text(), "text/html");
  if (page.getElementById("view")) return page;
  const why = page.querySelector("h1")?.textContent ?? "The console failed";
  throw new Stale(`${why}. What you see may be old.`);
}

async function refresh() {
  planned = null;
  show(await load());
}

function show(page) {
  served = rowsOf(page.getElementById("view"));
  for (const part of document.querySelectorAll("[data-live]")) {
    const fresh = page.getElementById(part.id);
    if (fresh && fresh.innerHTML !== part.innerHTML) part.replaceChildren(...fresh.childNodes);
  }
  const travel = page.getElementById("at");
  if (slider && travel) {
    slider.max = travel.max;
    slider.value = travel.value;
    document.getElementById("at-shown").textContent = `${travel.value} of ${travel.max}`;
  }
  if (!page.getElementById("live")) source?.close();
  waiting = 0;
  news.replaceChildren();
  enhance();
}

function offer(text) {
  const button = document.createElement("button");
  button.className = "copy";
  button.textContent = `${text} ↑`;
  button.addEventListener("click", () => { refresh().catch(stale); });
  news.replaceChildren(button);
}

function stale(problem) {
  const known = problem instanceof Stale;
  news.textContent = known ? problem.message : "No connection to the console. What you see may be old.";
}

function follow() {
  source = new EventSource(stream.dataset.stream);
  source.addEventListener("moved", () => {
    waiting += 1;
    if (isInUse()) offer(`${waiting} new`);
    else planned ??= setTimeout(() => refresh().catch(stale), 200);
  });
  // It ends with the flow, and with the session: loading tells.
  source.addEventListener("ended", () => { source.close(); load().catch(stale); });
  source.addEventListener("again", () => { source.close(); setTimeout(follow, 1000); });
  source.addEventListener("error", stale);
  source.addEventListener("open", () => { if (!waiting) news.replaceChildren(); });
}

async function poll() {
  if (document.hidden) return;
  const page = await load();
  if (!isInUse()) {
    show(page);
    return;
  }
  const rows = [...rowsOf(page.getElementById("view"))];
  const added = rows.filter(([key]) => !served.has(key)).length;
  const changed = rows.filter(([key, row]) => served.has(key) && served.get(key) !== row).length;
  const found = [added && `${added} new`, changed && `${changed} changed`].filter(Boolean).join(", ");
  if (found) offer(found);
  else news.replaceChildren();
}

// Filters: names of fields and their values are offered while somebody types.

const MOST_OFFERED = 10;

function complete(input) {
  const list = document.createElement("ul");
  list.id = "offered";
  list.className = "offered";
  list.role = "listbox";
  list.ariaLabel = "Completions";
  list.hidden = true;
  input.after(list);
  input.role = "combobox";
  input.setAttribute("aria-controls", list.id);
  input.ariaAutoComplete = "list";
  input.ariaExpanded = "false";
  let asked = null;
  let words = null;
  let offers = [];
  let chosen = -1;

  function close() {
    list.hidden = true;
    input.ariaExpanded = "false";
    input.removeAttribute("aria-activedescendant");
    offers = [];
    chosen = -1;
  }

  function pick(offer) {
    const after = input.value.slice(input.selectionStart);
    input.value = input.value.slice(0, offer.start) + offer.text + after;
    input.setSelectionRange(offer.start + offer.text.length, offer.start + offer.text.length);
    suggest();
  }

  function choose(next) {
    chosen = next;
    [...list.children].forEach((item, number) => { item.ariaSelected = String(number === chosen); });
    if (chosen < 0) input.removeAttribute("aria-activedescendant");
    else input.setAttribute("aria-activedescendant", list.children[chosen].id);
  }

  function found() {
    const typed = input.value.slice(0, input.selectionStart);
    const value = typed.match(/(?:^|[\s(-])([a-z][\w.]*)\s*(?:<=|>=|!=|=|<|>|:)\s*([^\s"()]*)$/);
    if (value) {
      const known = words[value[1]]?.values ?? [];
      return known.map((each) => [each, `${each} `, value[2]]);
    }
    const field = typed.match(/(?:^|[\s(-])([a-z_][\w.]*)$/);
    return field ? Object.keys(words).map((each) => [each, each + (words[each].then || " "), field[1]]) : [];
  }

  async function ask() {
    const answer = await fetch(input.dataset.complete, { redirect: "error" });
    if (!answer.ok) throw new Error("no completions");
    return answer.json();
  }

  async function suggest() {
    asked ??= ask();
    try {
      words = await asked;
    } catch (error) {
      asked = null;
      throw error;
    }
    close();
    for (const [label, text, typed] of found()) {
      const begins = label.toLowerCase().startsWith(typed.toLowerCase());
      if (!begins || text.trim() === typed || offers.length === MOST_OFFERED) continue;
      offers.push({ label, text, start: input.selectionStart - typed.length });
    }
    list.replaceChildren(...offers.map((offer, number) => {
      const item = document.createElement("li");
      item.id = `offered-${number}`;
      item.role = "option";
      item.ariaSelected = "false";
      item.textContent = offer.label;
      item.addEventListener("pointerdown", (event) => { event.preventDefault(); pick(offer); });
      return item;
    }));
    list.hidden = offers.length === 0;
    input.ariaExpanded = String(!list.hidden);
  }

  input.addEventListener("input", () => { suggest().catch(close); });
  input.addEventListener("blur", close);
  input.addEventListener("keydown", (event) => {
    if (list.hidden) return;
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    if (step) choose(((chosen + 1 + step + offers.length + 1) % (offers.length + 1)) - 1);
    else if (event.key === "Enter" && chosen >= 0) pick(offers[chosen]);
    else if (event.key === "Escape") close();
    else return;
    event.preventDefault();
  });
}

for (const input of document.querySelectorAll("[data-complete]")) complete(input);

if (stream) follow();
if (view && "poll" in view.dataset) {
  // The next question waits for the answer to the one before.
  const next = () => setTimeout(() => poll().catch(stale).finally(next), view.dataset.poll * 1000);
  next();
}
enhance();
// On a telephone, the names of the pages scroll sideways.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
