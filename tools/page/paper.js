// The printed page: every lane that is shown, the axis on each sheet, and the failures in full below.

const FAILURES_PRINTED = 20;

function printed() {
  const section = element("printed");
  section.replaceChildren();
  if (view.shown.length > PRINTED_MAX) {
    const cut = `The first ${PRINTED_MAX} of ${view.shown.length} lanes are printed; fold or filter to print others.`;
    section.append(make("p", "note", cut));
  }
  const told = new Set();
  const failures = events.filter((event) => {
    const again = told.has(event.summary) && !event.attempt; // a child's or the run's failure, told of the step before
    told.add(event.summary);
    return event.error && !again;
  });
  if (!failures.length) return;
  const some = failures.length > FAILURES_PRINTED ? `The first ${FAILURES_PRINTED} of ${failures.length} failures` : "";
  section.append(make("h2", null, some || "Failures"));
  for (const event of failures.slice(0, FAILURES_PRINTED)) {
    const made = make("article");
    const lane = lanes[laneOfEvent(event.place)];
    made.append(make("h3", null, `#${event.index} ${event.what}: ${lane.name}${event.id ? ` (id ${event.id})` : ""}`));
    const attempt = event.attempt ? `, attempt ${event.attempt}` : "";
    made.append(make("p", "soft", `+${duration(event.at)}${attempt}, run ${runs[event.run].id}`));
    made.append(make("pre", "error", (payload(event.place)?.[0] ?? "").split("\n").slice(-40).join("\n")));
    section.append(made);
  }
}

window.addEventListener("beforeprint", () => {
  printing = true;
  printed();
  redraw();
});
window.addEventListener("afterprint", () => {
  printing = false;
  element("printed").replaceChildren();
  redraw();
});
