"use strict";
/* Utility over alpha, as it was measured, with the slider's alpha on it. */

const HIGH = 236, LEFT = 34, RIGHT = 10, TOP = 12, BOTTOM = 26;
const WHO = {ours: "self-judging agents", best: "the best other router there", paper: "the paper's rule", oracle: "an oracle"};
let measured = null, scale = null;

async function fetchCurves() {
  const told = await (await call("v1/mesh/curves")).json();
  if (!told.curves.length) return;
  measured = told;
  $("curves").hidden = false;
  $("measured").textContent = "Measured at alpha " + told.alphas.map((each) => String(each).replace(/^0\./, ".")).join(", ") + " on " + told.questions.toLocaleString("en")
    + " questions of pool " + told.pool + " (seed " + told.seed + ", " + told.date + "); straight lines between, grey the other routers.";
  drawCurves();
}
const price = () => document.querySelector("input[name=price]:checked").value;

/** Every way to route that is paid for in this way; the best baseline is another one at each alpha. */
function ways() {
  const given = measured.curves.filter((each) => each[price()] || each.kind === "oracle")
    .map((each) => ({...each, worth: each[price()] || each.utility}));
  const others = given.filter((each) => each.kind === "baseline");
  const best = measured.alphas.map((_, place) => Math.max(...others.map((each) => each.worth[place])));
  return [...others, ...given.filter((each) => each.kind === "paper"),
    ...(others.length ? [{name: "best of the other routers, at each alpha", kind: "best", worth: best}] : []),
    ...given.filter((each) => each.kind === "oracle" && price() === "utility"), ...given.filter((each) => each.kind === "ours")];
}
function worthAt(way, alpha) {
  const xs = measured.alphas;
  if (alpha < xs[0] || alpha > xs.at(-1)) return null;
  const next = Math.max(1, xs.findIndex((each) => each >= alpha)), part = (alpha - xs[next - 1]) / (xs[next] - xs[next - 1]);
  return xs.length === 1 ? way.worth[0] : way.worth[next - 1] + part * (way.worth[next] - way.worth[next - 1]);
}
function drawCurves() {
  if (!measured) return;
  const width = Math.max(260, Math.floor($("chart").getBoundingClientRect().width)), all = ways();
  const shown = all.filter((each) => each.kind !== "baseline").flatMap((each) => each.worth);
  const least = Math.floor(Math.min(...shown) * 10 - .2) / 10, most = Math.ceil(Math.max(...shown) * 10) / 10;
  const x = (alpha) => LEFT + alpha * (width - LEFT - RIGHT), y = (worth) => TOP + (most - worth) / (most - least) * (HIGH - TOP - BOTTOM);
  const path = (way) => "M" + way.worth.map((each, place) => x(measured.alphas[place]).toFixed(1) + " " + y(each).toFixed(1)).join("L");
  const levels = Array.from({length: Math.round((most - least) * 10) + 1}, (_, step) => least + step / 10);
  const inside = {x: LEFT, y: TOP - 4, width: width - LEFT - RIGHT, height: HIGH - TOP - BOTTOM + 6};
  const dot = (way) => way.worth.map((each, place) => shape("circle",
    {class: "dot " + way.kind, cx: x(measured.alphas[place]), cy: y(each), r: way.kind === "ours" ? 3.5 : 2.25}));
  scale = x;
  $("chart").setAttribute("viewBox", "0 0 " + width + " " + HIGH);
  $("chart").replaceChildren(
    shape("defs", {}, shape("clipPath", {id: "inside"}, shape("rect", inside))),
    ...levels.map((level) => shape("line", {class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(level), y2: y(level)})),
    ...levels.map((level) => tick(LEFT - 8, y(level) + 4, "end", bare(level))),
    ...[0, ...measured.alphas, 1].map((alpha) => tick(x(alpha), HIGH - 8, "middle", bare(alpha))),
    shape("g", {"clip-path": "url(#inside)"}, ...all.map((way) => shape("path", {class: "curve " + way.kind, d: path(way)},
      shape("title", {}, way.name)))),
    ...all.filter((each) => each.kind !== "baseline").flatMap(dot),
    shape("line", {class: "here", x1: 0, x2: 0, y1: TOP - 4, y2: HIGH - BOTTOM + 2}),
    shape("circle", {class: "handle", cx: 0, cy: TOP - 4, r: 3.5}));
  $("chart").setAttribute("aria-label", "Utility over alpha: " + all.filter((each) => each.kind !== "baseline").map(
    (way) => way.name + " " + way.worth.map((each) => round(each)).join(", ")).join("; "));
  mark();
}
const tick = (x, y, anchor, text) => shape("text", {class: "tick", x, y, "text-anchor": anchor}, text);
/** Where the slider stands, and what each way to route is worth there. */
function mark() {
  if (!measured) return;
  const alpha = Number($("alpha").value);
  $("chart").querySelectorAll(".here, .handle").forEach((each) => { each.style.transform = "translateX(" + scale(alpha) + "px)"; });
  const all = ways(), worth = (way) => worthAt(way, alpha);
  const best = all.filter((each) => each.kind === "baseline").sort((a, b) => worth(b) - worth(a))[0];
  const told = all.filter((each) => each.kind !== "baseline").reverse().map((way) => {
    const name = way.kind === "best" ? worth(way) != null && best.name : way.kind !== "oracle" && way.name;
    const words = make("th", {scope: "row", className: way.kind}, make("span", {className: "swatch " + way.kind}), WHO[way.kind]);
    if (name) words.append(" ", make("small", {}, name));
    return make("tr", {}, words,
      make("td", {className: "number"}, worth(way) == null ? "–" : round(worth(way), 3)));
  });
  $("worth").replaceChildren(...told);
  $("worth-at").textContent = "At alpha " + round(alpha) + (worth(all[0]) == null ? " nothing was measured." : ":");
}
