// The panel beside the chart: what is known of the selected lane, event by event, with what they carried.

const details = element("details");
const EVENTS_MAX = 60; // of one lane at a time, around the one that was chosen

const WORDS = {
  run: "run", step: "step", wait: "wait", child: "child workflow", scope: "scope", race: "race", message: "message",
  mark: "mark", group: "group", branch: "branch",
};

function showDetails() {
  const lane = lanes[view.selected];
  details.replaceChildren();
  const head = make("div", "panel-head");
  const close = make("button", "close", "✕", { type: "button", "aria-label": "Close the details", title: "Esc" });
  close.addEventListener("click", hideDetails);
  head.append(make("h2", lane.mark, lane.name), close);
  details.append(head, line(lane), timesOf(lane));
  if (lane.note) details.append(make("p", "note", lane.note));
  if (lane.source) details.append(make("pre", "source", lane.source));
  if (lane.own !== null) details.append(...runFacts(runs[lane.own]));
  const chosen = Math.max(lane.events.indexOf(view.event), 0);
  const first = Math.max(0, Math.min(chosen - EVENTS_MAX / 2, lane.events.length - EVENTS_MAX));
  const near = lane.events.slice(first, first + EVENTS_MAX);
  if (near.length < lane.events.length) {
    const all = counted(lane.events.length, "event");
    details.append(make("p", "note", `${near.length} of ${all} are listed, around the one that is chosen.`));
  }
  for (const place of near) details.append(article(events[place]));
  if (!lane.events.length) details.append(...hintsOf(lane));
  else details.append(make("p", "soft", "To look closer:"), make("pre", "command", commandFor(lane)));
  details.hidden = false;
  document.body.classList.add("detailed");
}

function hideDetails() {
  if (details.contains(document.activeElement)) chart.focus();
  details.hidden = true;
  document.body.classList.remove("detailed");
  redraw();
}

/** One line: what the lane is, its id and line in the source, and the run it belongs to. */
function line(lane) {
  const parts = [WORDS[lane.kind] ?? lane.kind];
  if (lane.id) parts.push(`id ${lane.id}`);
  if (lane.line) parts.push(`line ${lane.line}`);
  if (lane.run) parts.push(`in ${runs[lane.run].id}`);
  return make("p", "soft", parts.join(" · "));
}

function timesOf(lane) {
  const list = make("dl", "facts");
  fact(list, "began", timeText(lane.began), utc(lane.began));
  if (lane.ended === null) {
    const due = lane.spans.filter((span) => span.ended === null && span.due !== null).map((span) => span.due);
    fact(list, "goes on", `for ${duration(data.stop - lane.began)} so far`);
    if (due.length && due[0] > data.stop) {
      fact(list, "due", `${clock(due[0])} (in ${duration(due[0] - data.stop)})`, utc(due[0]));
    } else if (due.length) {
      fact(list, "was due", `${clock(due[0])} (${duration(data.stop - due[0])} ago)`, utc(due[0]));
    }
  } else if (lane.ended > lane.began) {
    fact(list, "ended", timeText(lane.ended), utc(lane.ended));
    fact(list, "took", duration(lane.ended - lane.began));
  }
  if (lane.tries > 1) fact(list, "attempts", String(lane.tries));
  return list;
}

const timeText = (at) => `+${duration(at)}, ${clock(at)}`;

function fact(list, name, text, title) {
  const value = make("dd", null, text);
  if (title) value.title = title;
  list.append(make("dt", null, name), value);
}

/** Who a run is, for the panel of a child. */
function runFacts(run) {
  const list = make("dl", "facts");
  fact(list, "run", run.id);
  fact(list, "status", run.status);
  fact(list, "events", run.events.toLocaleString("en"));
  for (const [key, value] of run.tags) fact(list, `tag ${key}`, value);
  for (const [key, value] of run.state) fact(list, `state ${key}`, value);
  if (run.origin) fact(list, "origin", run.origin);
  return run.reason ? [list, make("pre", "reason", run.reason)] : [list];
}

function article(event) {
  const made = make("article", `event ${event.mark}${event.place === view.event ? " chosen" : ""}`);
  const head = make("h3");
  head.append(make("span", "number", `#${event.index}`), make("span", null, event.what));
  if (lanes[view.selected].run !== event.run) head.append(make("span", "soft", "of the child"));
  made.append(head);
  const parts = [`+${duration(event.at)}`];
  if (event.attempt) parts.push(`attempt ${event.attempt}`);
  if (event.took !== null && event.took !== undefined) parts.push(`took ${duration(event.took)}`);
  made.append(make("p", "soft", parts.join(" · ")));
  const list = make("dl", "facts");
  for (const [name, value] of event.facts) {
    if (typeof value === "number") fact(list, name, clock(value), utc(value));
    else fact(list, name, value);
  }
  if (list.childElementCount) made.append(list);
  const carried = payload(event.place);
  if (carried) {
    const [text, cut] = carried;
    if (text) made.append(make("pre", event.error ? "error" : "value", text, { tabindex: "0" }));
    if (cut) made.append(make("p", "note", cut));
  }
  return made;
}

/** The command that walks to the chosen event, or to the lane's last one of its own run. */
function commandFor(lane) {
  const own = lane.events.filter((place) => events[place].run === lane.run);
  const event = events[view.event ?? own.at(-1) ?? lane.events[0]];
  return `replay step ${runs[event.run].word} --at ${event.index} --app MODULE`;
}

/** What can be said of a lane that is told by its contents, or that waits without an event. */
function hintsOf(lane) {
  if (lane.kind !== "group" && lane.kind !== "branch") {
    return [make("p", "note", "The history says nothing of this yet; the code was asked what it waits for.")];
  }
  const counts = new Map();
  for (let at = lane.place + 1; at < lane.end; at++) {
    const name = lanes[at].name;
    if (sortOf(lanes[at])) counts.set(name, (counts.get(name) ?? 0) + 1);
  }
  const list = make("dl", "facts");
  const most = [...counts].sort((one, other) => other[1] - one[1]).slice(0, 20);
  for (const [name, count] of most) fact(list, name, count.toLocaleString("en"));
  return [make("p", "soft", "Branches that ran side by side, as All, Map, First or Spawn make them. Inside:"), list];
}
