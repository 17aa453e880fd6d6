"use strict";
/* The topology, and a query's path lit on it. Needs `mesh`, `$`, `make` and `shape` of page.js. */

const MARKS = {answered: "✓", refused: "?", declined: "–", failed: "!"};
const RADIUS = 22, ROUND = 2 * Math.PI * RADIUS;
const calm = matchMedia("(prefers-reduced-motion: reduce)");
const ROOMY = 64; // between two agents that stand side by side with their names
let drawn = "", at = {}, size = 1, lit = null, lighting = 0;

/** Where each agent stands: on a circle where most know each other, else in layers from the entry; and the height. */
function places(names, edges, width) {
  const many = names.reduce((sum, name) => sum + edges[name].length, 0);
  if (many > names.length && names.length > 2) return circle(names, width);
  const level = {}, layers = [];
  let next = [mesh.entry ?? names[0]];
  while (next.length) {
    next.forEach((name) => { level[name] = layers.length; });
    layers.push(next);
    next = [...new Set(next.flatMap((name) => edges[name]))].filter((name) => !(name in level));
  }
  const left = names.filter((name) => !(name in level));
  if (left.length) layers.push(left);
  return layers.every((layer) => layer.length === 1) ? snake(layers.flat(), width) : rows(layers, width);
}
function circle(names, width) {
  const across = Math.min(width / 2 - 44, 70 + 22 * names.length), down = Math.min(Math.max(across, 130), 30 + 15 * names.length);
  const spots = names.map((name, place) => {
    const angle = 2 * Math.PI * place / names.length - Math.PI / 2;
    return [name, [width / 2 + across * Math.cos(angle), down + 34 + down * Math.sin(angle)]];
  });
  return [Object.fromEntries(spots), 2 * down + 96];
}
function snake(names, width) {
  const columns = Math.max(2, Math.min(names.length, Math.floor(width / 84))), step = width / columns;
  const spots = names.map((name, place) => {
    const row = Math.floor(place / columns), column = place % columns;
    return [name, [step * ((row % 2 ? columns - 1 - column : column) + .5), 34 + 104 * row]];
  });
  return [Object.fromEntries(spots), 96 + 104 * Math.floor((names.length - 1) / columns)];
}
function rows(layers, width) {
  const spots = layers.flatMap((layer, row) => layer.map(
    (name, place) => [name, [width * (place + .5) / layer.length, 34 + 104 * row]]));
  return [Object.fromEntries(spots), 96 + 104 * (layers.length - 1)];
}

/** The least distance between two of these places. */
function gap(spots) {
  return Math.min(...spots.flatMap(([x, y], place) => spots.slice(place + 1).map(([u, v]) => Math.hypot(x - u, y - v))));
}

function draw() {
  const names = mesh.agents.map((each) => each.agent), edges = {};
  names.forEach((name) => { edges[name] = (mesh.topology.neighbours[name] || []).filter((to) => names.includes(to)); });
  const width = Math.max(280, Math.floor($("graph").parentElement.clientWidth - 32));
  const wanted = JSON.stringify([names, edges, width]);
  if (wanted !== drawn) redraw(names, edges, width, wanted);
  for (const agent of mesh.agents) {
    const group = nodeOf(agent.agent), load = (agent.in_hand || 0) + (agent.queued || 0);
    group.classList.toggle("away", agent.state !== "up");
    group.classList.toggle("busy", load > 0);
    group.querySelector(".count").textContent = load > 99 ? "99+" : load || "";
    if (!group.dataset.verdict) rest(group, agent);
  }
}
function redraw(names, edges, width, wanted) {
  let height;
  drawn = wanted;
  [at, height] = places(names, edges, width);
  size = Math.min(1, Math.max(.25, gap(Object.values(at)) / ROOMY));
  $("graph").classList.toggle("dense", size < 1);
  $("graph").setAttribute("viewBox", "0 0 " + width + " " + height);
  const lines = names.flatMap((name) => edges[name].map((to) => {
    const both = edges[to].includes(name);
    return both && name > to ? null : line(name, to, {class: "edge"}, both ? "" : "arrow");
  })).filter(Boolean);
  $("graph").replaceChildren(shape("defs", {}, head("arrow"), head("lit-arrow")), ...lines, shape("g", {id: "lit"}),
    ...names.map((name) => node(name, at[name])));
  $("graph").setAttribute("aria-label", "Topology: " + names.map(
    (name) => name + (edges[name].length ? " may forward to " + edges[name].join(", ") : " forwards to nobody")).join("; "));
  $("shape").textContent = names.length + " agents, " + mesh.topology.kind;
  if (lit) light(lit, 0);
}
function head(id) {
  return shape("marker", {id, viewBox: "0 0 8 8", refX: 8, refY: 4, markerWidth: 8, markerHeight: 8,
    markerUnits: "userSpaceOnUse", orient: "auto"}, shape("path", {d: "M0 .5 8 4 0 7.5z"}));
}
function line(from, to, fields, arrow) {
  const [x1, y1] = at[from], [x2, y2] = at[to], length = Math.hypot(x2 - x1, y2 - y1) || 1;
  const cut = (part) => [x1 + (x2 - x1) * part, y1 + (y2 - y1) * part].map((each) => each.toFixed(1)).join(" ");
  const steep = y2 - y1 > Math.abs(x2 - x1), start = arrow ? Math.min((steep ? 58 : 27) * size, length / 2) / length : 0;
  const made = shape("path", {...fields, d: "M" + cut(start) + "L" + cut(arrow ? 1 - 28 * size / length : 1), pathLength: 1});
  if (arrow) made.setAttribute("marker-end", "url(#" + arrow + ")");
  return made;
}
function node(name, [x, y]) {
  const short = name.length > 12 ? name.slice(0, 11) + "…" : name;
  const group = shape("g", {class: "node", transform: "translate(" + x + " " + y + ") scale(" + size + ")"},
    shape("title", {}, name), shape("circle", {r: RADIUS, class: "disc"}),
    shape("circle", {r: RADIUS, class: "ring", transform: "rotate(-90)", "stroke-dasharray": "0 " + ROUND}),
    shape("text", {y: 4, class: "inner"}), shape("text", {y: 39, class: "label"}, short),
    shape("text", {y: 54, class: "label sub"}), shape("circle", {cx: 18, cy: -18, r: 9, class: "load"}),
    shape("text", {x: 18, y: -14, class: "count"}));
  group.dataset.agent = name;
  return group;
}
const nodeOf = (name) => [...$("graph").querySelectorAll(".node")].find((each) => each.dataset.agent === name);
function rest(group, agent) {
  group.querySelector(".inner").textContent = short(agent.cost);
  group.querySelector(".sub").textContent = agent.state === "up" ? "" : agent.state;
}

/* ---------------------------------------------------------------- a path */

function dark() {
  lit = null;
  lighting += 1;
  for (const group of $("graph").querySelectorAll(".node")) {
    group.classList.remove("asked", "answered", "refused", "declined", "failed");
    delete group.dataset.verdict;
    group.querySelector(".ring").setAttribute("stroke-dasharray", "0 " + ROUND);
  }
  $("lit")?.replaceChildren();
  $("path").replaceChildren();
  $("told").textContent = "";
  $("no-path").hidden = true;
  if (mesh) draw();
}
async function light(reply, hop_ms = 380) {
  dark();
  lit = reply;
  const mine = lighting, wait = () => new Promise((done) => setTimeout(done, calm.matches ? 0 : hop_ms));
  let before = null;
  for (const [place, hop] of reply.path.entries()) {
    const group = nodeOf(hop.agent);
    if (group && at[before]) {
      const along = before !== hop.agent && mesh.topology.neighbours[before]?.includes(hop.agent);
      if (before !== hop.agent) $("lit").append(line(before, hop.agent, {class: along ? "lit" : "lit leap"}, "lit-arrow"));
    }
    group?.classList.add("asked");
    await wait();
    if (mine !== lighting) return;
    if (group) judged(group, hop);
    $("path").append(hopRow(hop, place + 1));
    before = hop.agent;
  }
  $("told").textContent = "Path: " + reply.path.map(hopWords).join("; ");
}
function judged(group, hop) {
  group.classList.remove("asked", "answered", "refused", "declined", "failed");
  group.classList.add(hop.verdict);
  group.dataset.verdict = hop.verdict;
  const share = hop.confidence ?? (hop.verdict === "failed" ? 0 : 1);
  group.querySelector(".ring").setAttribute("stroke-dasharray", share * ROUND + " " + ROUND);
  group.querySelector(".inner").textContent = hop.confidence == null ? MARKS[hop.verdict] : short(hop.confidence);
  group.querySelector(".sub").textContent = MARKS[hop.verdict] + " " + hop.verdict;
}
function hopRow(hop, place) {
  const bar = make("i", {}), sure = make("span", {className: "bar " + hop.verdict, ariaHidden: "true"}, bar);
  bar.style.width = 100 * (hop.confidence ?? 0) + "%";
  return make("tr", {},
    make("th", {scope: "row", title: hop.agent}, make("span", {className: "step"}, String(place)), hop.agent),
    make("td", {}, make("span", {className: "badge " + hop.verdict}, MARKS[hop.verdict] + " " + hop.verdict),
      ...(hop.reason ? [make("span", {className: "why"}, hop.reason)] : [])),
    make("td", {className: "mono"}, short(hop.confidence) || "–", ...(hop.confidence == null ? [] : [sure])),
    make("td", {className: "number"}, short(hop.full_cost, 3)), make("td", {className: "number"}, short(hop.seconds, 3)));
}
function hopWords(hop) {
  const why = hop.reason ? " (" + hop.reason + ")" : "";
  const sure = hop.confidence == null ? "" : ", confidence " + round(hop.confidence);
  return hop.agent + " " + hop.verdict + why + sure + ", full cost " + round(hop.full_cost, 3) + ", " + round(hop.seconds, 3) + " seconds";
}
