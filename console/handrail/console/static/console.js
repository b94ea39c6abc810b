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

const POLL_MS = 5000;

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

async function load() {
  const answer = await fetch(location.href, { headers: { [LIVE_HEADER]: "1" }, redirect: "error" });
  return answer.ok ? new DOMParser().parseFromString(await answer.text(), "text/html") : null;
}

async function refresh() {
  planned = null;
  const page = await load();
  if (page) show(page);
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

function stale() {
  news.textContent = "No connection to the console. What you see may be old.";
}

function follow() {
  source = new EventSource(stream.dataset.stream);
  source.addEventListener("moved", () => {
    waiting += 1;
    if (isInUse()) offer(`${waiting} new`);
    else planned ??= setTimeout(() => refresh().catch(stale), 200);
  });
  source.addEventListener("ended", () => source.close());
  source.addEventListener("again", () => { source.close(); setTimeout(follow, 1000); });
  source.addEventListener("error", stale);
  source.addEventListener("open", () => { if (!waiting) news.replaceChildren(); });
}

async function poll() {
  const page = document.hidden ? null : await load();
  if (!page) return;
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

if (stream) follow();
if (view && "poll" in view.dataset) {
  // The next question waits for the answer to the one before.
  const next = () => setTimeout(() => poll().catch(stale).finally(next), POLL_MS);
  next();
}
enhance();
// On a telephone, the names of the pages scroll sideways.
document.querySelector(".top nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "center" });
