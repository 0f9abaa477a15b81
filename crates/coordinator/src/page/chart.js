// Small live charts: lines and points on log axes, drawn anew at each look. The report has the careful figures.

const NS = "http://www.w3.org/2000/svg";
const [WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM] = [520, 312, 50, 12, 26, 42];

/** An SVG element; text goes in as text, never as markup. */
const s = (name, attributes, ...children) => {
  const element = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
};

/** `50k`, `1.6M`. */
export const count = (value) => {
  for (const [scale, suffix] of [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (value >= scale) return `${Number((value / scale).toPrecision(3))}${suffix}`;
  }
  return `${Number(value.toPrecision(3))}`;
};

/** `10¹²` for large numbers. */
export const power = (value) => {
  const raised = [...String(Math.floor(Math.log10(value)))].map((d) => "⁰¹²³⁴⁵⁶⁷⁸⁹"[d] ?? "⁻").join("");
  const lead = Number((value / 10 ** Math.floor(Math.log10(value))).toFixed(1));
  return lead === 1 ? `10${raised}` : `${lead}·10${raised}`;
};

const ticks = (low, high, wanted) => {
  const decades = Math.log10(high / low);
  if (decades >= 0.7) {
    for (const leads of [[1, 2, 5], [1, 3], [1]]) {
      const found = [];
      for (let e = Math.floor(Math.log10(low)); e <= Math.ceil(Math.log10(high)); e += 1) {
        for (const lead of leads) if (lead * 10 ** e >= low && lead * 10 ** e <= high) found.push(lead * 10 ** e);
      }
      if (found.length <= wanted + 2) return found;
    }
  }
  const raw = (high - low) / wanted, base = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 5, 10].map((m) => m * base).find((size) => size >= raw * 0.7);
  const found = [];
  for (let i = Math.ceil(low / step); i * step <= high; i += 1) found.push(i * step);
  return found;
};

const spread = (values, pad) => {
  const usable = values.filter((value) => value > 0 && Number.isFinite(value));
  let [low, high] = [Math.min(...usable), Math.max(...usable)];
  if (!(high > low)) [low, high] = [low / 1.5, high * 1.5];
  const room = (high / low) ** pad;
  return [low / room, high * room];
};

/**
 * A chart of `series` ({points: [[x, y]], colour, line, dash, title}) and `levels` ({y, colour, name}) on log axes.
 * Colours are names of CSS variables.
 */
export const chart = (series, levels, { x, y, word }) => {
  const all = series.flatMap((one) => one.points);
  if (all.length === 0) return null;
  const [x0, x1] = spread(all.map((p) => p[0]), 0.04);
  const losses = [...all.map((p) => p[1]), ...levels.map((level) => level.y)];
  // One run that went astray must not flatten the rest.
  const least = Math.min(...losses.filter((loss) => loss > 0));
  const [y0, y1] = spread(losses.map((loss) => Math.min(loss, least * 6)), 0.05);
  const px = (value) => LEFT + (Math.log(value / x0) / Math.log(x1 / x0)) * (WIDTH - LEFT - RIGHT);
  const py = (value) => TOP + (1 - Math.log(value / y0) / Math.log(y1 / y0)) * (HEIGHT - TOP - BOTTOM);
  const svg = s("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": `${y} against ${x}` });
  const text = (at, anchor, words, colour = "--muted") =>
    s("text", { x: at[0], y: at[1], "text-anchor": anchor, "font-size": 12, fill: `var(${colour})` }, words);
  for (const tick of ticks(y0, y1, 5)) {
    svg.append(s("path", { d: `M${LEFT} ${py(tick)}H${WIDTH - RIGHT}`, stroke: "var(--grid)" }));
    svg.append(text([LEFT - 7, py(tick) + 4], "end", `${Number(tick.toPrecision(3))}`));
  }
  for (const tick of ticks(x0, x1, 5)) svg.append(text([px(tick), HEIGHT - 22], "middle", word(tick)));
  svg.append(text([(LEFT + WIDTH) / 2, HEIGHT - 4], "middle", x, "--ink"), text([LEFT + 4, 12], "start", y, "--ink"));
  for (const level of levels) {
    svg.append(s("path", { d: `M${LEFT} ${py(level.y)}H${WIDTH - RIGHT}`, stroke: `var(${level.colour})`, "stroke-dasharray": level.dash ?? "" }));
    svg.append(text([WIDTH - RIGHT, py(level.y) - 5], "end", level.name, level.colour));
  }
  for (const one of series) svg.append(draw(one, px, (value) => Math.max(py(value), TOP)));
  return svg;
};

const draw = (one, px, py) => {
  const points = one.points.filter(([a, b]) => a > 0 && b > 0);
  const group = s("g", {}, s("title", {}, one.title));
  if (one.line) {
    const path = points.map(([a, b], i) => `${i ? "L" : "M"}${px(a).toFixed(1)} ${py(b).toFixed(1)}`).join("");
    group.append(s("path", { d: path, fill: "none", stroke: `var(${one.colour})`, "stroke-width": one.width ?? 1.5,
      "stroke-opacity": one.faint ? 0.5 : 1, "stroke-dasharray": one.dash ?? "" }));
  }
  for (const [a, b] of one.line ? points.slice(-1) : points) {
    if (one.bare) break;
    group.append(s("circle", { cx: px(a), cy: py(b), r: one.line ? 3 : 4.5, fill: `var(${one.colour})`, stroke: "var(--surface)" }));
  }
  return group;
};
