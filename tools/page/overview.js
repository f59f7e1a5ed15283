// The whole run in one strip: how much ran at each time, where it failed, and which part of it the chart shows.

const overview = element("overview");
const CELLS = 500;
const shade = make("div", "shade left");
const shadeAfter = make("div", "shade right");
const brushed = make("div", "brushed");
brushed.hidden = true;

const SVG = "http://www.w3.org/2000/svg";

function path(classes, d) {
  const made = document.createElementNS(SVG, "path");
  made.setAttribute("class", classes);
  made.setAttribute("d", d);
  return made;
}

/** How many spans of a sort lie over each cell: one pass over the spans, one over the cells. */
function profile(wanted) {
  const changes = new Float64Array(CELLS + 2);
  for (const lane of lanes) {
    for (const span of lane.spans) {
      if (!wanted(span)) continue;
      const first = Math.min(Math.floor(view.scale.place(span.began) * CELLS), CELLS - 1);
      const last = Math.min(Math.max(Math.ceil(view.scale.place(endOf(span)) * CELLS), first + 1), CELLS);
      changes[first] += 1;
      changes[last] -= 1;
    }
  }
  const counts = [];
  for (let cell = 0, sum = 0; cell < CELLS; cell++) counts.push(sum += changes[cell]);
  return counts;
}

/** The largest number of pieces of work that ran at the same time. */
function mostAtATime() {
  const changes = [];
  for (const lane of lanes) {
    for (const span of lane.spans) if (isWork(span)) changes.push([span.began, 1], [endOf(span), -1]);
  }
  changes.sort((one, other) => one[0] - other[0] || one[1] - other[1]);
  let most = 0;
  for (let at = 0, sum = 0; at < changes.length; at++) most = Math.max(most, sum += changes[at][1]);
  return most;
}

/** An area of steps: for each cell its count, as a share of the height that `most` takes. */
function area(counts, most, height) {
  let d = `M0 ${height}`;
  counts.forEach((count, cell) => {
    const y = (height - (count / most) * (height - 18)).toFixed(1);
    d += `V${y}H${cell + 1}`;
  });
  return `${d}V${height}Z`;
}

function drawOverview() {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", `0 0 ${CELLS} 100`);
  picture.setAttribute("preserveAspectRatio", "none");
  const working = profile(isWork);
  const waiting = profile((span) => span.stretch === "wait" || span.stretch === "backoff");
  const failed = profile((span) => span.stretch === "failed");
  const most = Math.max(...working, 1);
  const together = mostAtATime();
  const bands = waiting.map((count, cell) => (count ? `M${cell} 92H${cell + 1}V100H${cell}Z` : "")).join("");
  const marks = failed.map((count, cell) => (count ? `M${cell} 0H${cell + 1.2}V13H${cell}Z` : "")).join("");
  picture.append(path("work", area(working, most, 100)), path("wait", bands), path("failed", marks));
  for (const [began, ended] of view.scale.gaps) {
    const [from, to] = [view.scale.place(began) * CELLS, view.scale.place(ended) * CELLS];
    picture.append(path("gap", `M${from} 0H${to}V100H${from}Z`));
  }
  overview.replaceChildren(picture, shade, shadeAfter, brushed);
  element("most").textContent = together ? `at most ${together.toLocaleString("en")} at a time` : "";
  overview.title = "Drag to look at a part, double-click for the whole";
  drawWindow();
}

function drawWindow() {
  overview.style.marginRight = `${chart.offsetWidth - chart.clientWidth}px`;
  shade.style.width = `${view.from * 100}%`;
  shadeAfter.style.left = `${view.to * 100}%`;
}

/** Let a range be dragged over `over`: `done` gets where it begins and ends, as shares of the width of `target`. */
function draggable(target, isStart, band, done, over = target) {
  let start = null;
  const share = (event) => {
    const box = target.getBoundingClientRect();
    return Math.min(Math.max((event.clientX - box.left) / box.width, 0), 1);
  };
  over.addEventListener("pointerdown", (event) => {
    if (event.button !== 0 || event.pointerType !== "mouse" || !isStart(event)) return;
    start = { share: share(event), x: event.clientX };
  });
  window.addEventListener("pointermove", (event) => {
    if (!start || Math.abs(event.clientX - start.x) < 4) return;
    const [from, to] = [start.share, share(event)].sort((one, other) => one - other);
    band.hidden = false;
    band.style.left = `${from * 100}%`;
    band.style.width = `${(to - from) * 100}%`;
    document.body.classList.add("dragging");
  });
  window.addEventListener("pointerup", (event) => {
    if (!start) return;
    const [from, to] = [start.share, share(event)].sort((one, other) => one - other);
    if (!band.hidden) done(from, to);
    band.hidden = true;
    document.body.classList.remove("dragging");
    start = null;
  });
}
