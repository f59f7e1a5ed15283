// Which lanes are shown: what is folded, what the filter lets through, and which one is selected.

const view = {
  text: "",
  hidden: new Set(), // sorts that are not shown
  failures: false, // only what failed
  near: false, // only what lies within the time that is shown
  from: 0, // the part of the scale that is shown
  to: 1,
  scale: new Scale(idleShare > IDLE_AT_FIRST),
  selected: 0, // the place of a lane
  event: null, // the place of an event of that lane, where one was chosen
  shown: [], // places of the lanes that are shown, from top to bottom
};

const UNFOLDED_MAX = 300; // lanes to begin with; beyond, levels stay folded

/** Unfold level by level while that stays within what one can take in, and what leads to a failure of the run. */
function unfoldAtFirst() {
  const counts = [];
  for (const lane of lanes) counts[lane.depth] = (counts[lane.depth] ?? 0) + 1;
  let depth = 0;
  for (let sum = counts[0]; depth + 1 < counts.length && sum + counts[depth + 1] <= UNFOLDED_MAX; depth++) {
    sum += counts[depth + 1];
  }
  for (const lane of lanes) lane.unfolded = lane.depth < depth;
}

/** Whether a lane, with all that is inside, lies outside of the time that is shown, and is hidden for it. */
const isFar = (lane) => view.near
  && (view.scale.place(lane.began) > view.to || view.scale.place(endOf(lane)) < view.from);

const isFiltered = () => view.text !== "" || view.hidden.size > 0 || view.failures;

function matches(lane) {
  const sort = sortOf(lane);
  if (sort !== null && view.hidden.has(sort)) return false;
  if (view.failures && !hasFailed(lane)) return false;
  if (view.text === "") return sort !== null || view.failures || lane.place === 0;
  return lane.found ??= wordsOf(lane).join("\n").toLowerCase().includes(view.text);
}

const wordsOf = (lane) => [lane.name, lane.id, lane.summary, lane.source, lane.own === null ? "" : runs[lane.own].id,
  ...lane.events.slice(0, 100).map((place) => events[place].summary)];

/** Reckon which lanes are shown. What fits keeps what is around it, and what is inside of it. */
function reckonShown() {
  view.shown = [];
  if (!isFiltered()) {
    for (let at = 0; at < lanes.length;) {
      const far = isFar(lanes[at]);
      if (!far) view.shown.push(at);
      at = lanes[at].unfolded && !far ? at + 1 : lanes[at].end;
    }
    return;
  }
  const kept = new Uint8Array(lanes.length);
  const inside = view.text !== "" && !view.failures;
  for (let at = 0; at < lanes.length; at++) {
    const lane = lanes[at];
    if (isFar(lane)) continue;
    if (matches(lane)) kept[at] = 2;
    else if (inside && lane.parent && kept[lane.parent.place] > 1 && !view.hidden.has(sortOf(lane))) kept[at] = 3;
  }
  for (let at = lanes.length - 1; at >= 0; at--) if (kept[at] && lanes[at].parent) kept[lanes[at].parent.place] ||= 1;
  for (let at = 0; at < lanes.length; at = lanes[at].unfolded ? at + 1 : lanes[at].end) {
    if (kept[at]) view.shown.push(at);
  }
}

let unfoldedBefore = null;

/** Take over a changed filter. What leads to a lane that fits is unfolded, and folded again when the filter is gone. */
function filterChanged() {
  for (const lane of lanes) lane.found = undefined;
  if (isFiltered()) {
    unfoldedBefore ??= lanes.map((lane) => lane.unfolded);
    if (view.text !== "" || view.failures) {
      for (const lane of lanes) lane.unfolded = false;
      lanes.filter(matches).forEach(unfoldAround);
    }
  } else if (unfoldedBefore) {
    lanes.forEach((lane, at) => { lane.unfolded = unfoldedBefore[at]; });
    unfoldedBefore = null;
  }
  reckonShown();
}

function unfoldAround(lane) {
  for (let outer = lane.parent; outer && !outer.unfolded; outer = outer.parent) outer.unfolded = true;
}

/** Make a lane one of those that are shown, whatever is folded or filtered. */
function reveal(place) {
  if (isFar(lanes[place])) view.near = false;
  if (isFiltered() && !view.shown.includes(place)) {
    view.text = "";
    view.failures = false;
    view.hidden.clear();
    filterChanged();
  }
  for (let outer = lanes[place].parent; outer; outer = outer.parent) outer.unfolded = true;
  reckonShown();
}

/** The lane that an event belongs to. */
const laneOfEvent = (() => {
  const found = new Map();
  for (const lane of lanes) for (const event of lane.events) found.set(event, lane.place);
  return (event) => found.get(event) ?? 0;
})();

/** Where to begin: the event one was sent to, or what made the run fail, or its first lane. */
function firstSelected() {
  if (data.around !== null) return { event: data.around, place: laneOfEvent(data.around) };
  if (runs[0].status === "failed") {
    const bad = lanes.filter((lane) => lane.place && lane.mark === "bad" && lane.run === 0);
    if (bad.length) return { event: null, place: bad.at(-1).place };
  }
  return { event: null, place: null };
}
