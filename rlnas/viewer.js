"use strict";
const { trials } = JSON.parse(document.getElementById("data").textContent);
const $ = (id) => document.getElementById(id);
const PAUSE = 900; // milliseconds of a decision at speed 1
const SIGNS = { added: "+", changed: "~", removed: "−" };
const FIXED = new Set(["open", "input", "output", "add"]); // kinds of boxes that no decision fills
const SVG = "http://www.w3.org/2000/svg";

/* Every decision of the trial, or of both: a design has as many as the longer of the two. */
const lengths = Array.from({ length: Math.max(...trials.map((trial) => trial.designs.length)) }, (_, design) =>
  Math.max(...trials.map((trial) => trial.designs[design]?.steps.length ?? 1)));
const frames = lengths.flatMap((steps, design) => Array.from({ length: steps }, (_, step) => [design, step]));
const frameOf = (design, step) => frames.findIndex(([d, s]) => d === design && s === Math.min(step, lengths[d] - 1));
let frame = 0, timer = null, hashTimer = null;

/* Small pieces. */
function make(name, attributes = {}, text = "") {
  const element = name.startsWith("svg:") ? document.createElementNS(SVG, name.slice(4)) : document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  if (text) element.textContent = text;
  return element;
}
const number = (value, digits = 4) => (value === null || value === undefined ? "–" : value.toFixed(digits).replace("-", "−"));
const percent = (p) => (p === null ? "–" : p > 0 && p < 0.001 ? "< 0.1 %" : `${(100 * p).toFixed(1)} %`);

/* One trial's panel. */
class Panel {
  constructor(trial, section) {
    this.trial = trial;
    this.slot = Object.fromEntries([...section.querySelectorAll("[data-slot]")].map((e) => [e.dataset.slot, e]));
    this.drawings = new Map();
  }

  show(frameDesign, frameStep) {
    const { designs, words } = this.trial;
    const at = Math.min(frameDesign, designs.length - 1), design = designs[at];
    const over = frameDesign > at, last = design.steps.length - 1;
    const step = over ? last : Math.min(frameStep, last), said = design.steps[step];
    const done = step === last, best = done ? design.best : at ? designs[at - 1].best : null;
    const name = words[said.name], choice = words[said.choice];
    this.slot.decision.replaceChildren(over ? "ended with " : "", make("span", {}, `design ${at + 1}, ${name}: `), make("b", {}, choice));
    this.draw(said, at === 0, design.steps[step - 1]);
    this.think(said, choice);
    this.slot.value.textContent = number(said.value, 2);
    this.slot.reward.textContent = done ? number(design.reward) : "–";
    this.slot.accuracy.textContent = done ? number(design.accuracy) : "–";
    this.slot.best.textContent = number(best);
    this.slot.result.textContent = done ? design.result : "Not evaluated yet.";
    const share = said.p ? `, probability ${percent(said.p[said.legal.indexOf(said.choice)] ?? 0)}` : "";
    const value = said.value === undefined ? "" : `, value estimate ${number(said.value, 2)}`;
    const worth = done ? ` Accuracy ${number(design.accuracy)}, best so far ${number(design.best)}.` : "";
    return `${this.trial.label}: ${name}, ${choice}, of ${said.count} legal${share}${value}.${worth}`;
  }

  /* The design after a step; what the step decided glows. */
  draw(said, isFirst, previous) {
    if (!this.drawings.has(said.drawing)) {
      this.drawings.set(said.drawing, $("drawings").content.children[said.drawing].cloneNode(true));
    }
    const svg = this.drawings.get(said.drawing), boxes = said.boxes.map((box) => this.trial.boxes[box]);
    if (svg.parentNode !== this.slot.drawing) this.slot.drawing.replaceChildren(svg);
    svg.querySelector("title").textContent = said.design;
    const open = boxes.some(([kind]) => kind === "open") || previous;
    svg.querySelectorAll("g").forEach((group, index) => {
      const kind = boxes[index][0], before = previous ? this.trial.boxes[previous.boxes[index]]?.[0] : "open";
      fill(group, ...boxes[index]);
      group.classList.toggle("decided", Boolean(open && before === "open" && !FIXED.has(kind)));
    });
    for (const path of svg.querySelectorAll("path")) {
      const kinds = path.dataset.ends.split(" ").map((end) => boxes[end][0]);
      path.setAttribute("class", kinds.includes("none") ? "off" : kinds.includes("open") ? "open" : "");
    }
    const changed = boxes.filter(([, , change]) => change).map(([, label, change, was]) => {
      const words = { added: `${label} added`, removed: `${was} removed`, changed: `${was} → ${label}` }[change];
      return make("span", { class: change }, `${SIGNS[change]} ${words}`);
    });
    const list = changed.flatMap((item, index) => (index ? [" · ", item] : [item]));
    const against = isFirst ? "The first design of the trial." : "Against the design before: ";
    this.slot.changes.replaceChildren(make("b", {}, against), ...(isFirst || list.length ? list : ["no change so far"]));
  }

  think(said, choice) {
    const { words } = this.trial, bars = this.slot.bars, legal = said.legal.includes(said.choice);
    const rows = said.legal.map((word, index) => [words[word], said.p?.[index] ?? 0, word]);
    if (!legal) rows.push([choice, 0, said.choice]);
    const hidden = said.count - said.legal.length;
    const choices = `${said.count} legal choice${said.count === 1 ? "" : "s"}`;
    this.slot.heading.textContent = said.p ? `Probabilities of ${choices}` : `${choices}; probabilities: not known`;
    this.slot.note.textContent = [
      hidden > 0 ? `${hidden} more are not shown${said.p ? `: together ${percent(1 - said.p.reduce((a, b) => a + b, 0))}` : ""}.` : "",
      said.own === undefined ? "" : `The agent itself would have chosen ${words[said.own]}.`,
    ].join(" ").trim();
    bars.classList.toggle("unknown", !said.p);
    while (bars.children.length > rows.length) bars.lastChild.remove();
    rows.forEach(([name, p, word], index) => {
      const row = bars.children[index] ?? bars.appendChild(newRow()), taken = word === said.choice;
      const [label, track, share, mark] = row.children;
      row.className = taken ? "taken" : "";
      label.textContent = name;
      track.firstChild.style.width = `${100 * p}%`;
      share.textContent = said.p ? percent(p) : "";
      mark.textContent = !taken ? (word === said.own ? "its choice" : "") : legal ? "✓ taken" : "✗ illegal";
    });
  }
}

function newRow() {
  const row = make("li"), track = make("span", { class: "track" });
  track.append(make("span", { class: "fill" }));
  row.append(make("span", { class: "name" }), track, make("span", { class: "share" }), make("span", { class: "mark" }));
  return row;
}

/* A box of a drawing: its rectangle stays, its words are new. */
function fill(group, kind, label, change, was) {
  const [x, y, width, height] = ["x", "y", "width", "height"].map((key) => Number(group.firstChild.getAttribute(key)));
  const two = was && change !== "removed", middle = y + height / 2;
  const texts = [
    ["label", x + width / 2, middle - (two ? 6 : 0), change === "removed" ? "" : label],
    ["was", x + width / 2, middle + (two ? 9 : 0), two ? `was ${was}` : was],
    ["sign", x + width - 3, y + 2, SIGNS[change] ?? ""],
  ].filter(([, , , text]) => text);
  group.setAttribute("class", `${kind} ${change}`.trim());
  const badge = change ? [make("svg:circle", { cx: x + width - 3, cy: y + 2, r: 7.5 })] : [];
  group.replaceChildren(group.firstChild, ...badge, ...texts.map(([name, left, top, text]) => make("svg:text", { class: name, x: left, y: top }, text)));
}

/* The curve: accuracies and the running best of every trial; what is still to come is pale. */
const LEFT = 50, RIGHT = 14, TOP = 10, BOTTOM = 36;
let curve = null;

function drawCurve() {
  const width = $("curve").clientWidth, height = $("curve").clientHeight;
  const values = trials.flatMap((trial) => trial.designs.flatMap((design) => [design.accuracy ?? 0, design.best ?? 0]));
  const low = Math.min(...values), span = Math.max(...values) - low || 0.1;
  const x = (design) => LEFT + 6 + (lengths.length > 1 ? design / (lengths.length - 1) : 0.5 + design) * (width - LEFT - RIGHT - 12);
  const y = (value) => TOP + (1 - (value - low + span * 0.06) / (span * 1.12)) * (height - TOP - BOTTOM);
  const names = trials.map((trial) => `${trial.label}: best ${number(trial.designs.at(-1).best)} after ${trial.designs.length} designs`);
  const svg = make("svg:svg", { viewBox: `0 0 ${width} ${height}`, width, height, role: "img", "aria-label": names.join("; ") });
  const step = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5].find((size) => span / size <= height / 45) ?? 1;
  for (let tick = Math.ceil(low / step); tick * step <= low + span; tick += 1) {
    svg.append(make("svg:line", { class: "grid", x1: LEFT, x2: width - RIGHT, y1: y(tick * step), y2: y(tick * step) }));
    const label = (tick * step).toFixed(step < 0.01 ? 3 : 2);
    svg.append(make("svg:text", { x: LEFT - 8, y: y(tick * step) + 4, "text-anchor": "end" }, label));
  }
  const every = [1, 2, 5, 10, 20, 50, 100, 200, 500].find((size) => lengths.length / size <= width / 40) ?? 1000;
  lengths.forEach((_, design) => {
    if ((design + 1) % every === 0) {
      svg.append(make("svg:text", { x: x(design), y: height - 20, "text-anchor": "middle" }, String(design + 1)));
    }
  });
  svg.append(make("svg:text", { x: (LEFT + width - RIGHT) / 2, y: height - 3, "text-anchor": "middle" }, "design"));
  const gap = Math.min(24, x(1) - x(0)), r = Math.max(2.2, Math.min(4.5, (gap / trials.length) * 0.42));
  const now = make("svg:line", { class: "now", y1: TOP, y2: height - BOTTOM });
  const clip = make("svg:clipPath", { id: "past" }), past = make("svg:rect", { x: 0, y: 0, height });
  clip.append(past);
  svg.append(now, clip, plotted(x, y, r, "future"), plotted(x, y, r, "past"));
  $("curve").replaceChildren(svg);
  curve = { x, gap, now, past };
}

function plotted(x, y, r, kind) {
  const all = make("svg:g", kind === "past" ? { "clip-path": "url(#past)" } : { class: "future" });
  trials.forEach(({ designs }, index) => {
    const line = designs.map(({ best }, i) => (i ? `H${x(i)}V${y(best)}` : `M${x(0)} ${y(best)}`)).join("");
    all.append(make("svg:path", { class: `best k${index}`, d: line }));
  });
  trials.forEach(({ designs }, index) => {
    designs.forEach(({ accuracy, failed, steps }, i) => {
      const left = x(i) + (trials.length > 1 ? (2 * index - 1) * r : 0), top = y(accuracy ?? 0); // two stand side by side
      const place = index ? { x: left - r, y: top - r, width: 2 * r, height: 2 * r } : { cx: left, cy: top, r };
      const point = make(index ? "svg:rect" : "svg:circle", { class: `point k${index}${failed ? " failed" : ""}`, ...place });
      point.append(make("svg:title", {}, `design ${i + 1}: ${number(accuracy)}, ${steps.at(-1).design}`));
      all.append(point);
    });
  });
  return all;
}

function markCurve(design, step) {
  const x = curve.x(design), reached = (step === lengths[design] - 1 ? 0.5 : -0.5) * curve.gap;
  curve.now.setAttribute("x1", x);
  curve.now.setAttribute("x2", x);
  curve.past.setAttribute("width", Math.max(0, x + reached));
}

/* Where we are. */
const panels = [...document.querySelectorAll(".trial")].map((section, index) => new Panel(trials[index], section));

function show(index) {
  frame = Math.max(0, Math.min(frames.length - 1, index));
  const [design, step] = frames[frame];
  const where = `Design ${design + 1} of ${lengths.length}, step ${step + 1} of ${lengths[design]}`;
  const said = panels.map((panel) => panel.show(design, step));
  $("where").textContent = where;
  $("scrubber").value = frame;
  $("scrubber").setAttribute("aria-valuetext", where);
  markCurve(design, step);
  if (timer === null) {
    $("live").textContent = `${where}. ${said.join(" ")}`;
    clearTimeout(hashTimer); // browsers refuse addresses that change too often
    hashTimer = setTimeout(() => history.replaceState(null, "", `#${design + 1}.${step + 1}`), 150);
  }
}

function byDesign(way) {
  const [design, step] = frames[frame];
  show(frameOf(Math.max(0, Math.min(lengths.length - 1, design + way)), step));
}

function play(starts) {
  clearTimeout(timer);
  timer = null;
  if (starts && frame === frames.length - 1) show(0);
  const tick = () => {
    timer = setTimeout(() => {
      show(frame + 1);
      if (frame < frames.length - 1) tick();
      else play(false);
    }, PAUSE / Number($("speed").value));
  };
  if (starts) tick();
  else show(frame);
  const label = starts ? "Pause" : "Play";
  $("play").setAttribute("aria-label", label);
  $("play").title = label;
  $("play").querySelector("path").setAttribute("d", starts ? "M4 2v12h3V2zM10 2v12h3V2z" : "M4 2l10 6-10 6z");
}

function go(act) {
  if (timer !== null) play(false);
  act();
}

function goToHash(hash) {
  const [, design, step] = /^#(\d+)(?:\.(\d+))?$/.exec(hash) ?? [null, "1", "1"];
  const chosen = Math.max(1, Math.min(lengths.length, Number(design))) - 1;
  show(frameOf(chosen, Math.max(0, Number(step ?? 1) - 1)));
}

const ACTIONS = {
  "previous-design": () => go(() => byDesign(-1)),
  back: () => go(() => show(frame - 1)),
  play: () => play(timer === null),
  on: () => go(() => show(frame + 1)),
  "next-design": () => go(() => byDesign(1)),
  keys: () => $("help").showModal(),
};
for (const [id, act] of Object.entries(ACTIONS)) $(id).addEventListener("click", act);

const KEYS = {
  " ": ACTIONS.play, ArrowLeft: ACTIONS.back, ArrowRight: ACTIONS.on, PageUp: ACTIONS["previous-design"],
  PageDown: ACTIONS["next-design"], Home: () => go(() => show(0)), End: () => go(() => show(frames.length - 1)),
  "?": ACTIONS.keys, "shift ArrowLeft": ACTIONS["previous-design"], "shift ArrowRight": ACTIONS["next-design"],
};
document.addEventListener("keydown", (event) => {
  const on = event.target.closest("button, select, summary, a, dialog")?.localName;
  const theirs = on === "select" || on === "dialog" || $("help").open || (on && event.key === " ");
  const act = KEYS[`${event.shiftKey && event.key.startsWith("Arrow") ? "shift " : ""}${event.key}`];
  if (!act || theirs || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  act();
});
$("scrubber").addEventListener("input", () => go(() => show(Number($("scrubber").value))));
for (const kind of ["pointerdown", "pointermove"]) {
  $("curve").addEventListener(kind, (event) => {
    if (!event.buttons) return;
    const at = event.clientX - $("curve").getBoundingClientRect().left;
    const distances = lengths.map((_, design) => Math.abs(curve.x(design) - at));
    const design = distances.indexOf(Math.min(...distances));
    go(() => show(frameOf(design, lengths[design])));
  });
}
window.addEventListener("hashchange", ({ newURL }) => go(() => goToHash(new URL(newURL).hash)));
new ResizeObserver(() => { drawCurve(); markCurve(...frames[frame]); }).observe($("curve"));

$("scrubber").max = frames.length - 1;
drawCurve();
goToHash(location.hash);
