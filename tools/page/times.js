// Times as people write them, and the scale that turns time into a place on the page.
//
// A place is a number from 0 (the run's start) to 1 (its end, or now). With idle time shortened, stretches in which
// nothing ran are narrower than they were long, so that a run of two seconds with three days of sleep can be read.

const STEPS = [[86400e6, "d", 3600e6, "h"], [3600e6, "h", 60e6, "m"]];

/** A duration with its two leading parts, as the terminal writes it. */
function duration(us) {
  if (us < 0) return `-${duration(-us)}`;
  us = Math.round(us);
  for (const [unit, name, below, belowName] of STEPS) {
    if (us >= unit) return `${Math.floor(us / unit)}${name} ${two(Math.floor((us % unit) / below))}${belowName}`;
  }
  if (us >= 60e6) return `${Math.floor(us / 60e6)}m ${two(Math.floor((us % 60e6) / 1e6))}s`;
  for (const [unit, name] of [[1e6, "s"], [1e3, "ms"]]) {
    const value = us / unit;
    if (us >= unit) return `${value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0)} ${name}`;
  }
  return us ? `${us} µs` : "0";
}

const two = (number) => String(number).padStart(2, "0");

/** The moment of a time on the page; times out of a damaged record are brought into range, as in the terminal. */
const moment = (at) => new Date(Math.min(Math.max((data.start + at) / 1000, 0), 253402300799000));

/** A time on the page as that of the reader's clock, to the millisecond. */
function clock(at) {
  const time = moment(at);
  const day = `${time.getFullYear()}-${two(time.getMonth() + 1)}-${two(time.getDate())}`;
  return `${day} ${two(time.getHours())}:${two(time.getMinutes())}:${two(time.getSeconds())}`
    + `.${String(time.getMilliseconds()).padStart(3, "0")}`;
}

/** The same in UTC, for those who compare it with logs of elsewhere. */
const utc = (at) => moment(at).toISOString();

const whole = Math.max(data.stop, 1);
const endOf = (thing) => (thing.ended === null ? data.stop : thing.ended);

/** The stretches in which something ran, in order and without overlap. */
const busy = (() => {
  const found = [[0, 0], [data.stop, data.stop]];
  for (const lane of lanes) {
    for (const span of lane.spans) if (isWork(span)) found.push([span.began, endOf(span)]);
    for (const point of lane.points) found.push([point.at, point.at]);
  }
  found.sort((one, other) => one[0] - other[0]);
  const joined = [];
  for (const [began, ended] of found) {
    const last = joined.at(-1);
    if (last && began <= last[1]) last[1] = Math.max(last[1], ended);
    else joined.push([began, ended]);
  }
  return joined;
})();

const IDLE_SHARE = 0.2; // of the time that is left: what is idle for longer than this is worth shortening
const IDLE_WIDTH = 0.07; // of the page, for one of them, and less where there are many
const IDLE_TOGETHER = 0.4;

/** The idle stretches that are long beside the rest, longest first taken away. */
const idle = (() => {
  const gaps = [];
  for (let at = 1; at < busy.length; at++) gaps.push([busy[at - 1][1], busy[at][0]]);
  gaps.sort((one, other) => (other[1] - other[0]) - (one[1] - one[0]));
  const long = [];
  let left = whole;
  for (const gap of gaps) {
    const length = gap[1] - gap[0];
    if (length < IDLE_SHARE * left || length < 1000) break;
    long.push(gap);
    left -= length;
  }
  return long.sort((one, other) => one[0] - other[0]);
})();
const idleShare = idle.reduce((sum, [began, ended]) => sum + ended - began, 0) / whole;
const IDLE_AT_FIRST = 0.75; // a run of which so much is idle is drawn shortened to begin with

class Scale {
  constructor(shortened) {
    this.gaps = shortened ? idle : [];
    const width = this.gaps.length ? Math.min(IDLE_WIDTH, IDLE_TOGETHER / this.gaps.length) : 0;
    const rest = whole * (1 - (shortened ? idleShare : 0));
    const density = rest > 0 ? (1 - width * this.gaps.length) / rest : 0;
    this.times = [0];
    this.places = [0];
    const add = (time, place) => { this.times.push(time); this.places.push(place); };
    for (const [began, ended] of this.gaps) {
      if (began > this.times.at(-1)) add(began, this.places.at(-1) + (began - this.times.at(-1)) * density);
      add(ended, this.places.at(-1) + width);
    }
    if (whole > this.times.at(-1)) add(whole, 1);
    this.places[this.places.length - 1] = 1;
  }

  place(time) { return between(this.times, this.places, time); }

  time(place) { return between(this.places, this.times, place); }
}

/** Where `value` lies on a line of straight pieces through the points (from, to). */
function between(from, to, value) {
  let low = 0;
  let high = from.length - 1;
  if (high < 1) return 0;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (from[middle] <= value) low = middle; else high = middle;
  }
  const length = from[high] - from[low];
  return to[low] + (length ? (value - from[low]) / length : 0) * (to[high] - to[low]);
}

const NICE = [1, 2, 5, 10, 20, 50, 100, 200, 500].flatMap((n) => [n, n * 1e3]).concat(
  [1, 2, 5, 10, 15, 30].map((n) => n * 1e6), [1, 2, 5, 10, 15, 30].map((n) => n * 60e6),
  [1, 2, 3, 6, 12].map((n) => n * 3600e6), [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].map((n) => n * 86400e6),
).sort((one, other) => one - other);

/** Round times for the axis, at least `apart` places from one another, within [from, to] and outside of idle time. */
function ticks(scale, from, to, apart) {
  const found = [];
  const edges = [0, ...scale.gaps.flat(), whole];
  for (let at = 0; at < edges.length; at += 2) {
    const began = Math.max(edges[at], scale.time(from));
    const ended = Math.min(edges[at + 1], scale.time(to));
    if (ended <= began) continue;
    const density = (scale.place(ended) - scale.place(began)) / (ended - began);
    const step = NICE.find((nice) => nice * density >= apart) ?? NICE.at(-1);
    for (let time = Math.ceil(began / step) * step; time <= ended && found.length < 200; time += step) {
      found.push([time, tickLabel(time, step)]);
    }
  }
  return found;
}

/** A round time with as many decimals as tell it from its neighbours. */
function tickLabel(us, step) {
  const decimals = (unit) => Math.max(0, Math.ceil(Math.log10(unit / step)));
  if (us < 1e3) return us ? `${us} µs` : "0";
  if (us < 1e6) return `${(us / 1e3).toFixed(decimals(1e3))} ms`;
  if (us < 60e6) return `${(us / 1e6).toFixed(decimals(1e6))} s`;
  const parts = [];
  let rest = us;
  for (const [unit, name] of [[86400e6, "d"], [3600e6, "h"], [60e6, "m"]]) {
    if (rest >= unit) parts.push(`${Math.floor(rest / unit)}${name}`);
    rest %= unit;
  }
  if (rest) parts.push(`${(rest / 1e6).toFixed(decimals(1e6))}s`);
  return parts.join(" ");
}
