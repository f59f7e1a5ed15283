// The data of the page as objects, and the few ways in which elements are made from it.
//
// Whatever came out of a history reaches the page through `make`, which sets text and never markup.

const element = (id) => document.getElementById(id);

/** An element with classes, text and children; `attributes` are set as such. */
function make(tag, classes, text, attributes) {
  const made = document.createElement(tag);
  if (classes) made.className = classes;
  if (text !== undefined && text !== null) made.textContent = text;
  for (const [name, value] of Object.entries(attributes ?? {})) made.setAttribute(name, value);
  return made;
}

const data = JSON.parse(element("data").textContent);
const runs = data.runs;

/** Records come as lists in the order of their fields' names. */
function read(sort, record) {
  const object = {};
  data.fields[sort].forEach((name, at) => { object[name] = record[at]; });
  return object;
}

const events = data.events.map((record, at) => ({ ...read("event", record), place: at }));
const lanes = data.lanes.map((record, at) => {
  const lane = read("lane", record);
  lane.place = at;
  lane.spans = lane.spans.map((span) => ({ ...read("span", span), lane }));
  lane.points = lane.points.map((point) => ({ ...read("point", point), lane }));
  lane.parent = null;
  lane.end = at + 1; // one beyond the last lane inside
  lane.unfolded = false;
  lane.failures = 0; // inside, and of its own
  return lane;
});

(() => {
  const around = [];
  for (const lane of lanes) {
    while (around.length && around.at(-1).depth >= lane.depth) around.pop();
    lane.parent = around.at(-1) ?? null;
    for (const outer of around) outer.end = lane.place + 1;
    around.push(lane);
  }
  for (let at = lanes.length - 1; at >= 0; at--) {
    const lane = lanes[at];
    const own = lane.spans.filter((span) => span.stretch === "failed").length;
    lane.failures += own || (lane.mark === "bad" && lane.kind !== "run" && lane.failures === 0 ? 1 : 0);
    if (lane.parent) lane.parent.failures += lane.failures;
  }
})();

const hasInside = (lane) => lane.end > lane.place + 1;
const hasFailed = (lane) => lane.mark === "bad" || lane.spans.some((span) => span.stretch === "failed");

/** A number with its word: `1 event`, `1,200 events`. */
const counted = (count, one, many = `${one}s`) => `${count.toLocaleString("en")} ${count === 1 ? one : many}`;

/** What a lane counts as where kinds are shown and hidden. */
const SORTS = { step: "steps", wait: "waits", child: "children", message: "signals", mark: "signals" };
const sortOf = (lane) => SORTS[lane.kind] ?? null;

/** Whether something inside a lane, or itself, is a piece of work as opposed to waiting or holding others. */
const isWork = (span) =>
  span.stretch === "work" || span.stretch === "failed" || (span.stretch === "child" && !hasInside(span.lane));

const blocks = new Map();

/** What an event carries: [text, what is missing of it], or null. A block of them is read when first asked for. */
function payload(place) {
  const size = 256;
  const number = Math.floor(place / size);
  if (!blocks.has(number)) blocks.set(number, JSON.parse(element(`payloads-${number}`).textContent));
  return blocks.get(number)[place % size];
}
