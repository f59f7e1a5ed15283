// The head of the page: who the run is, how it stands, and what an open one waits for.

const ENDED = new Set(["cancelled", "terminated"]); // as somebody wished, which is no failure

function drawHead() {
  const run = runs[0];
  const head = element("head");
  const title = make("h1");
  title.append(make("span", "workflow", run.workflow), make("span", "id", run.id));
  title.append(make("span", `status ${run.status}`, run.status));
  head.append(title, make("p", "soft", headLine(run)));
  if (run.reason) head.append(make("pre", ENDED.has(run.status) ? "waiting" : "reason", run.reason));
  const last = events[run.first + run.events - 1];
  if (last?.error && !run.open) head.append(make("p", run.status === "failed" ? "reason" : "waiting", last.summary));
  if (run.open && run.status !== "blocked") head.append(make("p", "waiting", waitingLine()));
  if (run.problem) head.append(make("p", "reason", `The code cannot tell what the run waits for: ${run.problem}`));
  if (run.unreadable) head.append(make("p", "reason", run.unreadable[0].toUpperCase() + run.unreadable.slice(1)));
  const list = make("dl", "chips");
  for (const [key, value] of run.tags) fact(list, key, value);
  for (const [key, value] of run.state) fact(list, key, value);
  if (run.parent) fact(list, "child of", run.parent);
  if (run.origin) fact(list, "origin", run.origin);
  if (list.childElementCount) head.append(list);
  const made = data.made.slice(0, 19).replace("T", " ");
  element("foot").textContent = `Written by replay show, dalsegno ${data.version}, ${made} UTC. `
    + "This page fetches nothing and sends nothing.";
}

const WAITING_MAX = 4;

/** What an open run waits for, as far as the history or the code tells. */
function waitingLine() {
  const open = lanes.filter((lane) => lane.ended === null && lane.own === null && sortOf(lane) !== null);
  const said = open.slice(0, WAITING_MAX).map((lane) => {
    const span = lane.spans.find((one) => one.ended === null);
    const how = { backoff: `another attempt of ${lane.name}`, work: `${lane.name}, in flight` };
    const until = span?.due > data.stop ? "until" : "overdue since";
    const due = span?.due ? `, ${until} ${clock(span.due).slice(0, -4)}` : "";
    const where = lane.run ? ` in ${runs[lane.run].id}` : "";
    const length = duration(data.stop - (span?.began ?? lane.began));
    return `${how[span?.stretch] ?? lane.name}${where} (${length} so far${due})`;
  });
  if (!open.length) return "It is open, and its history does not name what it waits for; with --app its code is asked.";
  const more = open.length > WAITING_MAX ? `; and ${open.length - WAITING_MAX} more` : "";
  return `Waits for ${said.join("; ")}${more}.`;
}

function headLine(run) {
  const parts = [`started ${clock(0)}`];
  parts.push(run.ended === null ? `open since ${duration(data.stop)}` : `took ${duration(run.ended)}`);
  parts.push(counted(run.events, "event"));
  const others = runs.slice(1).reduce((sum, child) => sum + child.events, 0);
  if (runs.length > 1) parts.push(`${counted(runs.length - 1, "child run")} with ${others.toLocaleString("en")}`);
  const failures = lanes.reduce((sum, lane) => sum + (lane.depth ? 0 : lane.failures), 0);
  if (failures) parts.push(counted(failures, "failure"));
  return parts.join(" · ");
}
