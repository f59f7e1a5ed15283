// The pointer: clicks on lanes and bars, dragging over time, what the bar below it is, the line that can be moved.

const tip = element("tip");

function listenToPointer() {
  const times = element("axis-times");
  draggable(overview, () => true, brushed, (from, to) => zoomed(() => zoomTo(from, to)));
  overview.addEventListener("dblclick", () => zoomTo(0, 1));
  draggable(times, (event) => event.target.closest(".track, #axis-times"), swept, (from, to) => {
    const width = view.to - view.from;
    zoomed(() => zoomTo(view.from + from * width, view.from + to * width));
  }, chart);
  space.addEventListener("click", (event) => {
    const row = event.target.closest(".row");
    if (!row || document.body.classList.contains("dragging")) return;
    const place = Number(row.id.slice("lane-".length));
    if (event.target.closest(".twist")) {
      toggle(place);
      return;
    }
    if (event.target.closest(".hint")) zoomed(() => zoomToTimes(lanes[place].began, endOf(lanes[place])));
    select(place, event.target.thing?.event ?? null);
  });
  space.addEventListener("dblclick", (event) => {
    const row = event.target.closest(".row");
    if (!row || !event.target.closest(".track")) return;
    const thing = event.target.thing ?? lanes[Number(row.id.slice("lane-".length))];
    if (thing.began !== undefined && endOf(thing) > thing.began) zoomToTimes(thing.began, endOf(thing));
  });
  chart.addEventListener("wheel", (event) => {
    const box = times.getBoundingClientRect();
    if (event.ctrlKey || event.metaKey) {
      event.preventDefault();
      zoomBy(Math.exp(-event.deltaY * 0.004), Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1));
    } else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) {
      event.preventDefault();
      pan((event.deltaX || event.deltaY) / box.width);
    }
  }, { passive: false });
  chart.addEventListener("pointermove", hover);
  chart.addEventListener("pointerleave", () => { cross.hidden = tip.hidden = true; });
  chart.addEventListener("scroll", () => { tip.hidden = true; }, { passive: true });
  divide();
}

/** The line under the pointer with its time, and what the bar below it is. */
function hover(event) {
  const box = element("axis-times").getBoundingClientRect();
  const share = (event.clientX - box.left) / box.width;
  cross.hidden = share < 0 || share > 1 || event.pointerType !== "mouse";
  if (!cross.hidden) {
    const time = view.scale.time(view.from + share * (view.to - view.from));
    if (cross.parentElement !== grid) grid.append(cross);
    cross.style.left = `${share * 100}%`;
    cross.className = share > 0.8 ? "cross before" : "cross";
    cross.firstChild.textContent = `+${duration(time)}`;
    cross.firstChild.style.top = `${chart.scrollTop + 2}px`;
  }
  const thing = event.target.thing;
  tip.hidden = !thing || event.pointerType !== "mouse";
  if (tip.hidden) return;
  describe(thing);
  const right = event.clientX + 14 + tip.offsetWidth > window.innerWidth;
  tip.style.left = `${Math.max(4, right ? event.clientX - tip.offsetWidth - 10 : event.clientX + 14)}px`;
  tip.style.top = `${Math.min(event.clientY + 16, window.innerHeight - tip.offsetHeight - 4)}px`;
}

const STRETCHES = {
  run: "the run", work: "ran", failed: "failed", backoff: "waited for the next attempt", wait: "waited",
  pause: "paused", child: "child ran", group: "everything inside",
};

function describe(thing) {
  const event = thing.event === null || thing.event === undefined ? null : events[thing.event];
  const lane = thing.lane;
  tip.replaceChildren(make("strong", null, lane.name));
  const spans = thing.began !== undefined;
  const from = spans ? thing.began : thing.at;
  const went = spans ? ` for ${duration(endOf(thing) - from)}${thing.ended === null ? " so far" : ""}` : "";
  const what = spans ? STRETCHES[thing.stretch] : event?.what ?? "";
  const attempt = event?.attempt > 1 || (event && lane.tries > 1) ? `, attempt ${event.attempt}` : "";
  tip.append(make("div", null, `${what}${went}${attempt}`), make("div", "soft", `from +${duration(from)}`));
  if (spans && thing.ended === null && thing.due !== null) tip.append(make("div", "soft", `due ${clock(thing.due)}`));
  if (!event?.summary || thing.stretch === "backoff") return;
  tip.append(make("div", event.error ? "error" : "summary", event.summary));
}

/** Let the line between names and times be dragged. */
function divide() {
  let dragged = false;
  element("divider").addEventListener("pointerdown", (event) => {
    dragged = true;
    event.preventDefault();
    event.stopPropagation();
  });
  window.addEventListener("pointermove", (event) => {
    if (!dragged) return;
    const width = Math.min(Math.max(event.clientX - chart.getBoundingClientRect().left, 90), chart.clientWidth - 160);
    document.body.style.setProperty("--names", `${width}px`);
  });
  window.addEventListener("pointerup", () => {
    if (dragged) redraw();
    dragged = false;
  });
}
