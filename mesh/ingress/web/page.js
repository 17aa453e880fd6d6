"use strict";
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const needsKey = document.querySelector("meta[name=mesh-keys]").content === "yes";
const MINUTE = 60;
const loads = new Map(); // agent -> its load at each of the last looks
let mesh = null, asking = null, reply = null, shown = null, adopted = false;

function make(kind, fields, ...inside) {
  const element = Object.assign(document.createElement(kind), fields);
  element.append(...inside);
  return element;
}
function shape(kind, fields, ...inside) {
  const element = document.createElementNS(SVG, kind);
  for (const [name, value] of Object.entries(fields)) element.setAttribute(name, value);
  element.append(...inside);
  return element;
}
const round = (number, digits = 2) => (number == null ? "" : Number(number).toFixed(digits));
const short = (number, digits = 2) => round(number, digits).replace(/^(-?)0\./, "$1.");
const bare = (number) => (Number.isInteger(number) ? String(number) : short(number, 1));
const key = () => sessionStorage.getItem("mesh-key") || "";
const alphaNow = () => Number($("alpha").value);

async function call(path, options = {}) {
  const headers = {...options.headers};
  if (key()) headers.Authorization = "Bearer " + key();
  if (options.body) headers["Content-Type"] = "application/json";
  const answer = await fetch(path, {...options, headers});
  if (answer.ok) return answer;
  let told = {};
  try { told = (await answer.json()).error || {}; } catch { /* no JSON */ }
  if (answer.status === 401) { sessionStorage.removeItem("mesh-key"); lock(); }
  throw new Error(told.message || "status " + answer.status);
}
function lock() { $("locked").hidden = false; }

/* ---------------------------------------------------------------- the mesh now */

async function look() {
  if (!document.hidden && (key() || !needsKey)) {
    try {
      show(await (await call("v1/mesh")).json());
    } catch (error) {
      $("health").className = "none";
      $("health").textContent = "Not reached: " + error.message;
    }
  }
  setTimeout(look, 1000);
}
function show(now) {
  mesh = now;
  $("name").textContent = now.name;
  const up = now.agents.filter((each) => each.state === "up").length;
  const words = up + " of " + now.agents.length + " agents up";
  if ($("health").textContent !== words) $("health").textContent = words;
  $("health").className = up === now.agents.length ? "" : up ? "some" : "none";
  if (!adopted) adopt(now);
  draw();
  remember(now.agents);
  $("agents").replaceChildren(...now.agents.map(agentRow));
  const newest = JSON.stringify(now.last);
  if (newest !== $("last").dataset.told) {
    const place = [...$("last").querySelectorAll("button")].findIndex((each) => each === document.activeElement);
    const focused = place < 0 ? null : $("last").rows[place].dataset.id;
    $("last").replaceChildren(...now.last.map(queryRow));
    $("last").dataset.told = newest;
    [...$("last").rows].find((row) => row.dataset.id === focused)?.querySelector("button").focus();
  }
  $("no-last").hidden = now.last.length > 0;
}
function adopt(now) {
  adopted = true;
  $("alpha").value = now.alpha;
  slid();
  $("examples").replaceChildren(...now.examples.slice(0, 6).map((text) => {
    const button = make("button", {type: "button", className: "small"}, text);
    button.onclick = () => { $("query").value = text; slid(); $("query").focus(); };
    return button;
  }));
  $("examples").hidden = now.examples.length === 0;
  fetchCurves().catch((error) => { $("trouble").textContent = error.message; });
}
const load = (agent) => (agent.in_hand || 0) + (agent.queued || 0);
function remember(agents) {
  for (const agent of agents) loads.set(agent.agent, [...(loads.get(agent.agent) || []), load(agent)].slice(-MINUTE));
}
function spark(agent) {
  const told = loads.get(agent.agent), most = Math.max(4, ...[...loads.values()].flat());
  const points = told.map((each, place) => (MINUTE - told.length + place) * 80 / (MINUTE - 1) + " " + (17 - 15 * each / most));
  return shape("svg", {class: "spark", viewBox: "0 0 80 18", role: "img", "aria-label": "at most " + Math.max(...told)},
    shape("line", {x1: 0, x2: 80, y1: 17, y2: 17}), shape("path", {d: "M" + points.join("L")}));
}
function agentRow(agent) {
  const kind = agent.state === "up" ? "up" : agent.state === "starting" ? "starting" : "down";
  const number = (value) => make("td", {className: "number"}, String(value ?? ""));
  return make("tr", {}, make("th", {scope: "row", title: agent.agent}, agent.agent), make("td", {className: kind}, agent.state),
    number(round(agent.cost)), number(agent.in_hand), number(agent.queued),
    make("td", {className: "load-over-time"}, spark(agent)), number(agent.deaths));
}
function queryRow(query) {
  const when = new Date(query.time * 1000).toLocaleTimeString([], {hourCycle: "h23"});
  const path = (query.path || []).map((hop) => hop.agent + " " + MARKS[hop.verdict]).join(" → ");
  const again = make("button", {type: "button", className: "small"}, path || query.error);
  again.disabled = !query.path;
  again.setAttribute("aria-label", path ? "Show the path " + path : query.error);
  again.classList.toggle("shown", query.id === shown);
  again.onclick = () => { point(query.id); light(query); };
  const right = query.right == null ? "" : query.right ? "yes" : "no";
  const number = (value, less = "") => make("td", {className: "number" + less}, round(value));
  const row = make("tr", {}, make("td", {className: "mono"}, when), number(query.alpha), make("td", {}, again),
    number(query.cost), number(query.full_cost, " less"), number(query.seconds, " less"), make("td", {}, right));
  row.dataset.id = query.id;
  return row;
}
/** Which of the last queries is the one whose path is lit. */
function point(identity) {
  shown = identity;
  for (const row of $("last").rows) row.querySelector("button").classList.toggle("shown", row.dataset.id === identity);
}

/* ---------------------------------------------------------------- asking */

function slid() {
  const alpha = alphaNow();
  $("alpha-value").textContent = round(alpha);
  const words = alpha <= .25 ? "the best answer" : alpha >= .75 ? "the cheapest answer" : "a balance of quality and cost";
  $("alpha").setAttribute("aria-valuetext", round(alpha) + ", " + words);
  const body = JSON.stringify({model: "mesh", alpha, messages: [{role: "user", content: $("query").value || "…"}]});
  $("shell").textContent = "curl " + location.origin + "/v1/chat/completions \\\n  -H 'Content-Type: application/json' \\\n"
    + (needsKey ? "  -H \"Authorization: Bearer $MESH_API_KEY\" \\\n" : "") + "  -d '" + body.replaceAll("'", "'\\''") + "'";
  mark();
}
async function ask(event) {
  event?.preventDefault();
  if (asking) return;
  asking = new AbortController();
  reply = null;
  point(null);
  dark();
  $("answer").textContent = $("trouble").textContent = $("judged").textContent = "";
  $("figures").replaceChildren();
  $("judge").hidden = true;
  $("answer").setAttribute("aria-busy", "true");
  busy(true);
  if (mesh?.entry) nodeOf(mesh.entry)?.classList.add("asked");
  const alpha = alphaNow(), messages = [{role: "user", content: $("query").value}];
  const body = JSON.stringify({model: "mesh", messages, stream: true, alpha});
  try {
    const answer = await call("v1/chat/completions", {method: "POST", body, signal: asking.signal});
    for await (const chunk of events(answer.body)) heard(chunk);
    if (!reply && !$("trouble").textContent) throw new Error("the stream broke off");
  } catch (error) {
    dark();
    $("trouble").textContent = error.name === "AbortError" ? "Stopped." : error.message;
  }
  $("answer").setAttribute("aria-busy", "false");
  asking = null;
  busy(false);
  if (reply && $("again").checked && alphaNow() !== alpha) ask();
}
function heard(chunk) {
  if (chunk.error) { dark(); $("trouble").textContent = chunk.error.message; return; }
  $("answer").append(chunk.choices?.[0]?.delta?.content || "");
  if (!chunk.mesh) return;
  reply = chunk.mesh;
  const told = [["Answered by", reply.agent], ["Confidence", short(reply.confidence) || "–"], ["Alpha", round(reply.alpha)],
    ["Cost", round(reply.cost)], ["Full cost", round(reply.full_cost, 3)], ["Seconds", round(reply.seconds)]];
  $("figures").replaceChildren(...told.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", {}, value))));
  $("judge").hidden = false;
  point(reply.id);
  light(reply);
}
async function* events(stream) {
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const {value, done} = await reader.read();
    if (done) return;
    const parts = (rest + value).split("\n\n");
    rest = parts.pop();
    for (const part of parts) {
      const data = part.replace(/^data: /, "");
      if (data !== "[DONE]") yield JSON.parse(data);
    }
  }
}
function busy(now) { $("send").disabled = now; $("stop").disabled = !now; }
async function judge(event) {
  const right = event.target.dataset?.right;
  if (!right || !reply) return;
  try {
    await call("v1/mesh/feedback", {method: "POST", body: JSON.stringify({id: reply.id, right: right === "true"})});
    $("judged").textContent = "Noted as " + (right === "true" ? "right." : "wrong.");
  } catch (error) {
    $("judged").textContent = error.message;
  }
}

$("ask").addEventListener("submit", ask);
$("query").addEventListener("input", slid);
$("alpha").addEventListener("input", slid);
$("alpha").addEventListener("change", () => { if ($("again").checked && $("query").value.trim()) ask(); });
$("stop").addEventListener("click", () => asking?.abort());
$("judge").addEventListener("click", judge);
$("curves").addEventListener("change", drawCurves);
$("query").addEventListener("keydown", (event) => {
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) $("ask").requestSubmit();
});
$("unlock").addEventListener("submit", (event) => {
  event.preventDefault();
  sessionStorage.setItem("mesh-key", $("key").value.trim());
  $("key").value = "";
  $("locked").hidden = true;
});
addEventListener("resize", () => { if (mesh) draw(); drawCurves(); });
if (needsKey && !key()) lock();
slid();
look();
