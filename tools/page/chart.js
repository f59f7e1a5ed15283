// The chart: rows for the lanes that are in sight, their bars, the axis and its grid.
//
// A history may have ten thousand lanes. Only the rows in sight exist as elements, and only the bars within the part of
// the time that is shown; bars closer together than a pixel are drawn as one. Places are percentages, so a window may
// change its width without anything being reckoned again.

const chart = element("chart");
const space = element("space");
const grid = element("grid");

const cross = make("div", "cross"); // follows the pointer, with the time it is at
cross.append(make("span"));
cross.hidden = true;
const swept = make("div", "brushed"); // what is being dragged over
swept.hidden = true;

const BEYOND = 8; // rows that exist above and below those in sight, so that scrolling meets no gaps
const PRINTED_MAX = 2000;
const DRAWN_MAX = 400; // bars in one lane; where more lie in sight, neighbours are drawn as one

let rowHeight = 24;
let version = 0; // of what rows show; an element of an older one is made anew
let printing = false;
const rowsThere = new Map(); // elements by the lane's place

/** The part of the lane's row that a time lies at, in percent of what is shown; may lie outside. */
const percent = (time) => ((view.scale.place(time) - view.from) / (view.to - view.from)) * 100;

function clip(began, ended) {
  const left = Math.max(percent(began), -1);
  const right = Math.min(percent(ended), 101);
  return right < -0.5 || left > 100.5 || right < left ? null : [left, right];
}

/** Draw everything anew: what is shown, or when, has changed. */
function redraw() {
  version++;
  space.style.height = `${view.shown.length * rowHeight}px`;
  chart.setAttribute("aria-rowcount", String(view.shown.length + 1));
  drawAxis();
  drawRows();
  drawWindow();
  element("empty").hidden = view.shown.length > 0;
}

function drawRows() {
  const height = printing ? Infinity : chart.clientHeight;
  const top = Math.floor(chart.scrollTop / rowHeight);
  const first = printing ? 0 : Math.max(0, top - BEYOND);
  const last = Math.min(view.shown.length, printing ? PRINTED_MAX : top + Math.ceil(height / rowHeight) + BEYOND);
  const wanted = new Set(view.shown.slice(first, last));
  for (const [place, row] of rowsThere) {
    if (!wanted.has(place) || row.version !== version) {
      row.remove();
      rowsThere.delete(place);
    }
  }
  const added = [];
  for (let at = first; at < last; at++) {
    const place = view.shown[at];
    if (rowsThere.has(place)) continue;
    const row = makeRow(lanes[place], at);
    row.version = version;
    rowsThere.set(place, row);
    added.push(row);
  }
  if (printing) added.forEach((row) => space.append(row));
  else space.append(...added);
  markSelected();
}

function makeRow(lane, at) {
  const open = lane.ended === null;
  const mark = lane.kind === "run" ? runs[lane.run].status : lane.mark;
  const row = make("div", `row ${lane.kind} ${mark}${open ? " open" : ""}${at % 2 ? " odd" : ""}`, null, {
    role: "row", id: `lane-${lane.place}`, "aria-level": lane.depth + 1, "aria-rowindex": at + 2,
  });
  if (hasInside(lane)) row.setAttribute("aria-expanded", String(lane.unfolded));
  row.style.top = `${at * rowHeight}px`;
  const name = make("div", "name", null, { role: "rowheader" });
  name.style.paddingLeft = `${6 + Math.min(lane.depth, 16) * 14}px`;
  const twist = !hasInside(lane) ? "" : lane.unfolded ? "▾" : "▸";
  name.append(make("span", "twist", twist, { "aria-hidden": "true" }));
  name.append(make("span", "sign", null, { "aria-hidden": "true" }), make("span", "text", lane.name));
  if (lane.failures && hasInside(lane)) name.append(make("span", "count", `${lane.failures} failed`));
  if (lane.tries > 1) name.append(make("span", "tries", `${lane.tries} attempts`));
  if (lane.summary) name.append(make("span", "summary", lane.summary));
  const took = make("div", "took", tookOf(lane), { role: "gridcell" });
  const track = make("div", "track", null, { role: "gridcell", "aria-label": saidOf(lane) });
  drawTrack(track, lane);
  row.append(name, took, track);
  return row;
}

const tookOf = (lane) => (endOf(lane) === lane.began && lane.ended !== null ? "" : duration(endOf(lane) - lane.began));

/** What a lane's bars show, for those who do not see them. */
function saidOf(lane) {
  const failed = lane.spans.filter((span) => span.stretch === "failed").length;
  const parts = [`began after ${duration(lane.began)}`];
  parts.push(lane.ended === null ? "goes on" : `took ${duration(lane.ended - lane.began)}`);
  if (failed) parts.push(`${failed} attempt${failed === 1 ? "" : "s"} failed`);
  if (lane.spans.some((span) => span.stretch === "wait")) parts.push("waiting");
  return parts.join(", ");
}

function drawTrack(track, lane) {
  const folded = hasInside(lane) && !lane.unfolded;
  let left = 0;
  let right = 0;
  for (const span of crowded(lane.spans)) {
    const where = clip(span.began, endOf(span));
    if (!where) {
      if (percent(endOf(span)) < 0) left++; else right++;
      continue;
    }
    const bar = make("div", `bar ${span.stretch}${span.ended === null ? " open" : ""}`);
    bar.style.left = `${where[0]}%`;
    bar.style.width = `${where[1] - where[0]}%`;
    bar.thing = span;
    track.append(bar);
  }
  if (folded) drawInside(track, lane);
  for (const point of crowded(lane.points)) {
    const at = percent(point.at);
    if (at < -0.5) left++;
    else if (at > 100.5) right++;
    else {
      const dot = make("div", `point ${point.mark}`);
      dot.style.left = `${at}%`;
      dot.thing = point;
      track.append(dot);
    }
  }
  if (!track.childElementCount && left + right) {
    const hint = make("button", left > right ? "hint before" : "hint after", left > right ? "◂" : "▸", {
      type: "button", tabindex: "-1", title: "Go to where this is",
    });
    track.append(hint);
  }
}

/** Bars within the time that is shown, and of those that lie closer than can be told apart only the first. */
function crowded(things) {
  if (things.length <= DRAWN_MAX) return things;
  const found = [];
  let last = -Infinity;
  for (const thing of things) {
    const at = percent(thing.began ?? thing.at);
    if (at > 101 || (thing.ended !== undefined && percent(endOf(thing)) < -1) || at - last < 100 / DRAWN_MAX) continue;
    found.push(thing);
    last = at;
  }
  return found.length ? found : things.slice(0, 1);
}

/** What happens inside of a folded lane, as a thin strip: where something runs, and where it fails. */
function drawInside(track, lane) {
  const cells = new Uint8Array(DRAWN_MAX + 1);
  for (let at = lane.place + 1; at < lane.end; at++) {
    for (const span of lanes[at].spans) {
      if (!isWork(span)) continue;
      const where = clip(span.began, endOf(span));
      if (!where) continue;
      const mark = span.stretch === "failed" ? 2 : 1;
      const first = Math.max(0, Math.floor((where[0] / 100) * DRAWN_MAX));
      const last = Math.min(DRAWN_MAX, Math.round((where[1] / 100) * DRAWN_MAX));
      for (let cell = first; cell < Math.max(last, first + 1); cell++) cells[cell] = Math.max(cells[cell], mark);
    }
  }
  for (let cell = 0; cell < DRAWN_MAX;) {
    let end = cell + 1;
    while (end < DRAWN_MAX && cells[end] === cells[cell]) end++;
    if (cells[cell]) {
      const strip = make("div", `strip ${cells[cell] === 2 ? "failed" : "work"}`);
      strip.style.left = `${(cell / DRAWN_MAX) * 100}%`;
      strip.style.width = `${((end - cell) / DRAWN_MAX) * 100}%`;
      track.append(strip);
    }
    cell = end;
  }
}

// --- the axis ------------------------------------------------------------------------------------------------------

function drawAxis() {
  const axis = element("axis-times");
  axis.replaceChildren();
  grid.replaceChildren(cross, swept);
  const width = printing ? 640 : Math.max(axis.clientWidth, 100);
  for (const [began, ended] of view.scale.gaps) {
    const where = clip(began, ended);
    if (!where) continue;
    const band = make("div", "gap");
    band.style.left = `${where[0]}%`;
    band.style.width = `${where[1] - where[0]}%`;
    grid.append(band);
    const label = make("div", "gap", ((where[1] - where[0]) / 100) * width > 48 ? duration(ended - began) : "", {
      title: `Nothing ran for ${duration(ended - began)}; drawn short`,
    });
    label.style.left = band.style.left;
    label.style.width = band.style.width;
    axis.append(label);
  }
  for (const [time, text] of ticks(view.scale, view.from, view.to, (82 / width) * (view.to - view.from))) {
    const at = percent(time);
    const line = make("div", "line");
    line.style.left = `${at}%`;
    grid.append(line);
    const label = make("div", "tick", text);
    label.style.left = `${at}%`;
    if ((at / 100) * width + text.length * 7 < width) axis.append(label);
  }
}

// --- zoom ----------------------------------------------------------------------------------------------------------

const NARROWEST = 1e-9;

/** Show this part of the scale, brought into range. */
function zoomTo(from, to) {
  const width = Math.min(Math.max(to - from, NARROWEST, 20 / whole / 1e3), 1);
  view.from = Math.min(Math.max(from, 0), 1 - width);
  view.to = view.from + width;
  if (view.near) reckonShown();
  redraw();
}

/** Zoom by a factor around a place between 0 and 1 of what is shown. */
function zoomBy(factor, around = 0.5) {
  const fixed = view.from + (view.to - view.from) * around;
  const width = (view.to - view.from) / factor;
  zoomTo(fixed - width * around, fixed + width * (1 - around));
}

const pan = (share) => zoomTo(view.from + (view.to - view.from) * share, view.to + (view.to - view.from) * share);

/** Show the time of one lane or bar, with some room around it. */
function zoomToTimes(began, ended) {
  const from = view.scale.place(began);
  const to = view.scale.place(ended);
  const room = Math.max((to - from) * 0.1, (view.to - view.from) * 0.001, 1e-7);
  zoomTo(from - room, to + room);
}

/** Scroll to a row, if it is not in sight. */
function scrollTo(place) {
  const at = view.shown.indexOf(place);
  if (at < 0) return;
  const axis = element("axis").offsetHeight;
  const top = at * rowHeight;
  if (top < chart.scrollTop) chart.scrollTop = Math.max(0, top - rowHeight);
  else if (top + rowHeight > chart.scrollTop + chart.clientHeight - axis) {
    chart.scrollTop = top - (chart.clientHeight - axis) + 2 * rowHeight;
  }
}

/** After a zoom: if none of the rows in sight has anything to show, go to the first that has. */
function scrollToSomething() {
  const top = Math.floor(chart.scrollTop / rowHeight);
  const count = Math.floor((chart.clientHeight - element("axis").offsetHeight) / rowHeight);
  const inSight = (place) => {
    const lane = lanes[place];
    return lane.kind !== "run" && clip(lane.began, endOf(lane)) !== null;
  };
  if (view.shown.slice(top, top + count).some(inSight)) return;
  const at = view.shown.findIndex(inSight);
  if (at >= 0) {
    chart.scrollTop = Math.max(0, at - 2) * rowHeight;
    drawRows();
  }
}

function markSelected() {
  for (const [place, row] of rowsThere) {
    if (place === view.selected) row.setAttribute("aria-selected", "true");
    else row.removeAttribute("aria-selected");
  }
  if (rowsThere.has(view.selected)) chart.setAttribute("aria-activedescendant", `lane-${view.selected}`);
  else chart.removeAttribute("aria-activedescendant");
}
