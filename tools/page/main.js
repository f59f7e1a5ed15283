// What is shown and selected, the buttons and keys that change it, and where everything begins.

const said = element("said");

// --- what is shown -------------------------------------------------------------------------------------------------

const KINDS = [["steps", "Steps", "work"], ["children", "Children", "child"], ["waits", "Waits", "wait"],
  ["signals", "Messages", "moment"]];

function drawKinds() {
  const counts = {};
  for (const lane of lanes) {
    const sort = sortOf(lane);
    if (sort) counts[sort] = (counts[sort] ?? 0) + 1;
  }
  for (const [sort, label, sign] of KINDS) {
    if (!counts[sort]) continue;
    const button = make("button", "kind", null, { type: "button", "aria-pressed": "true", "data-sort": sort });
    button.append(make("span", `sign ${sign}`), `${label} `, make("span", "number", counts[sort].toLocaleString("en")));
    button.addEventListener("click", () => {
      if (!view.hidden.delete(sort)) view.hidden.add(sort);
      changed();
    });
    element("kinds").append(button);
  }
  const failed = lanes.filter(hasFailed).length;
  if (!failed) return;
  const title = "Only the lanes in which something failed; n goes to the next";
  const button = make("button", "kind", null, { type: "button", "aria-pressed": "false", id: "failures", title });
  button.append(make("span", "sign failed"), "Only failed ", make("span", "number", failed.toLocaleString("en")));
  button.addEventListener("click", () => {
    view.failures = !view.failures;
    changed();
  });
  element("kinds").append(button);
}

/** The filter is another: reckon, draw, and say how much is left. */
function changed() {
  filterChanged();
  chart.scrollTop = 0;
  redraw();
  showControls();
}

/** Let the controls say what is filtered, which may have come about without them. */
function showControls() {
  element("near").setAttribute("aria-pressed", String(view.near));
  element("failures")?.setAttribute("aria-pressed", String(view.failures));
  for (const button of element("kinds").querySelectorAll("[data-sort]")) {
    button.setAttribute("aria-pressed", String(!view.hidden.has(button.dataset.sort)));
  }
  if (element("filter").value.trim().toLowerCase() !== view.text) element("filter").value = view.text;
  said.textContent = isFiltered() || view.near ? `${view.shown.length} of ${lanes.length} lanes are shown` : "";
}

/** Select a lane, and with `open` show what is known of it. */
function select(place, event = null, open = true) {
  view.selected = place;
  view.event = event;
  markSelected();
  if (open || !details.hidden) {
    const before = details.hidden;
    showDetails();
    if (before) redraw();
    details.querySelector(".chosen")?.scrollIntoView({ block: "nearest" });
  }
  scrollTo(place);
  drawRows();
}

function toggle(place, wanted = !lanes[place].unfolded) {
  if (!hasInside(lanes[place])) return;
  lanes[place].unfolded = wanted;
  reckonShown();
  redraw();
}

function foldAll(unfolded) {
  for (const lane of lanes) lane.unfolded = unfolded;
  reckonShown();
  if (!view.shown.includes(view.selected)) view.selected = view.shown[0] ?? 0;
  redraw();
}

function nextFailure() {
  const failed = lanes.filter(hasFailed);
  const next = failed.find((lane) => lane.place > view.selected) ?? failed[0];
  if (!next) return;
  reveal(next.place);
  redraw();
  showControls();
  select(next.place);
}

function shorten(wanted) {
  const [from, to] = [view.scale.time(view.from), view.scale.time(view.to)];
  view.scale = new Scale(wanted);
  element("idle").setAttribute("aria-pressed", String(wanted));
  drawOverview();
  zoomTo(view.scale.place(from), view.scale.place(to));
}

// --- buttons and keys ----------------------------------------------------------------------------------------------

function zoomed(act) {
  act();
  scrollToSomething();
}

const KEYS = [
  ["↑ ↓ PgUp PgDn Home End", "select another lane"],
  ["← →", "fold and unfold, go to what is around or inside"],
  ["Enter", "show what is known of a lane"],
  ["Esc", "close the details, clear the filter"],
  ["+ − 0", "zoom in, out, the whole run"],
  ["z", "zoom to the selected lane"],
  ["Shift ← →", "earlier, later"],
  ["/", "filter"],
  ["n", "the next failure"],
  ["drag", "zoom to a stretch of time"],
  ["Ctrl wheel", "zoom where the pointer is"],
];

function listen() {
  element("in").addEventListener("click", () => zoomBy(2));
  element("out").addEventListener("click", () => zoomBy(0.5));
  element("fit").addEventListener("click", () => zoomTo(0, 1));
  element("idle").addEventListener("click", () => shorten(view.scale.gaps.length === 0));
  element("idle").hidden = idle.length === 0;
  element("idle").setAttribute("aria-pressed", String(view.scale.gaps.length > 0));
  element("near").addEventListener("click", () => {
    view.near = !view.near;
    changed();
  });
  element("fold").addEventListener("click", () => foldAll(false));
  element("unfold").addEventListener("click", () => foldAll(true));
  element("fold").parentElement.hidden = lanes.every((lane) => lane.depth === 0);
  element("filter").addEventListener("input", (event) => {
    view.text = event.target.value.trim().toLowerCase();
    changed();
  });
  const list = element("keys").lastElementChild;
  for (const [keys, does] of KEYS) list.append(make("dt", null, keys), make("dd", null, does));
  chart.addEventListener("scroll", drawRows, { passive: true });
  chart.addEventListener("keydown", key);
  document.addEventListener("keydown", keyAnywhere);
  new ResizeObserver(() => { if (!printing) redraw(); }).observe(chart);
  listenToPointer();
}

function key(event) {
  const at = view.shown.indexOf(view.selected);
  const page = Math.max(1, Math.floor(chart.clientHeight / rowHeight) - 2);
  const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
  const lane = lanes[view.selected];
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key in moves && !event.shiftKey) {
    const next = Math.min(Math.max(at + moves[event.key], 0), view.shown.length - 1);
    if (view.shown.length) select(view.shown[next], null, false);
  } else if (event.key === "ArrowRight" && event.shiftKey) pan(0.25);
  else if (event.key === "ArrowLeft" && event.shiftKey) pan(-0.25);
  else if (event.key === "ArrowRight" && !lane.unfolded) toggle(view.selected, true);
  else if (event.key === "ArrowRight" && hasInside(lane)) select(view.shown[at + 1] ?? view.selected, null, false);
  else if (event.key === "ArrowLeft" && lane.unfolded && hasInside(lane)) toggle(view.selected, false);
  else if (event.key === "ArrowLeft" && lane.parent) select(lane.parent.place, null, false);
  else if (event.key === "Enter" || event.key === " ") {
    select(view.selected, view.event);
    details.focus();
  } else return;
  event.preventDefault();
}

function keyAnywhere(event) {
  const typing = event.target instanceof HTMLInputElement;
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Escape") {
    if (!details.hidden) hideDetails();
    else if (isFiltered()) {
      view.text = "";
      view.failures = false;
      view.hidden.clear();
      changed();
    }
    return;
  }
  if (typing) return;
  const acts = {
    "+": () => zoomBy(2), "=": () => zoomBy(2), "-": () => zoomBy(0.5), 0: () => zoomTo(0, 1), n: nextFailure,
    z: () => zoomToTimes(lanes[view.selected].began, endOf(lanes[view.selected])), "/": () => element("filter").focus(),
  };
  if (!acts[event.key]) return;
  acts[event.key]();
  event.preventDefault();
}

// --- begin ---------------------------------------------------------------------------------------------------------

unfoldAtFirst();
drawHead();
drawKinds();
listen();
reckonShown();
drawOverview();
redraw();
(() => {
  const { place, event } = firstSelected();
  if (place === null) return;
  reveal(place);
  redraw();
  select(place, event, event !== null || window.innerWidth >= 1000);
})();
document.documentElement.dataset.ready = "true";
