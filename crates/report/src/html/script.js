"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const REACH = 26; // pixels from which a mark can be pointed at

  // Titles serve readers without a script; with one they would show twice.
  const marks = [...document.querySelectorAll("g.mark")];
  for (const mark of marks) {
    const title = mark.querySelector("title");
    mark.tip = title ? title.textContent : "";
    if (title) title.remove();
    if (mark.tip) mark.setAttribute("aria-label", mark.tip);
  }

  const light = (run) => {
    document.body.classList.toggle("dim", Boolean(run));
    for (const other of document.querySelectorAll(".lit")) other.classList.remove("lit");
    if (!run) return;
    for (const same of document.querySelectorAll(`[data-run="${CSS.escape(run)}"]`)) same.classList.add("lit");
  };
  const hide = () => { tip.hidden = true; light(null); };
  const show = (mark, box) => {
    tip.textContent = mark.tip;
    tip.hidden = false;
    const own = tip.getBoundingClientRect();
    const right = box.right + 14;
    const left = right + own.width > innerWidth - 8 ? box.left - own.width - 14 : right;
    tip.style.left = `${Math.max(8, left)}px`;
    tip.style.top = `${Math.min(Math.max(8, box.top - 12), innerHeight - own.height - 8)}px`;
    light(mark.dataset.run);
  };

  for (const svg of document.querySelectorAll("figure svg")) {
    const own = marks.filter((mark) => svg.contains(mark) && mark.tip);
    svg.addEventListener("pointermove", (event) => {
      let best = null, near = REACH;
      for (const mark of own) {
        if (mark.classList.contains("off")) continue;
        const box = mark.getBoundingClientRect();
        const away = Math.hypot(event.clientX - (box.left + box.right) / 2, event.clientY - (box.top + box.bottom) / 2);
        if (away < near) { near = away; best = { mark, box }; }
      }
      if (best) show(best.mark, best.box); else hide();
    });
    svg.addEventListener("pointerleave", hide);
  }
  for (const row of document.querySelectorAll("tr[data-run]")) {
    row.addEventListener("pointerenter", () => light(row.dataset.run));
    row.addEventListener("pointerleave", hide);
  }

  for (const box of document.querySelectorAll("[data-toggle]")) {
    box.addEventListener("change", () => {
      for (const part of document.querySelectorAll("[data-arm]")) {
        if (part.dataset.arm === box.dataset.toggle) part.classList.toggle("off", !box.checked);
      }
    });
  }

  for (const head of document.querySelectorAll(".sortable th")) {
    head.addEventListener("click", () => {
      const column = [...head.parentNode.children].indexOf(head);
      const up = head.getAttribute("aria-sort") !== "ascending";
      for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", up ? "ascending" : "descending");
      const body = head.closest("table").tBodies[0];
      const key = (row) => {
        const cell = row.cells[column];
        return cell.dataset.v !== undefined ? Number(cell.dataset.v) : cell.textContent;
      };
      // Missing values stay last in both orders.
      const order = (a, b) => {
        if (a === "" || b === "") return (a === "") - (b === "");
        const by = typeof a === "number" && typeof b === "number" ? a - b : String(a).localeCompare(String(b));
        return up ? by : -by;
      };
      body.append(...[...body.rows].sort((a, b) => order(key(a), key(b))));
    });
  }

  const save = (name, type, text) => {
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text], { type }));
    link.download = name;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  };
  const actions = {
    csv: () => save("runs.csv", "text/csv", data.csv),
    tex: () => save("law.tex", "application/x-tex", data.tex),
    checklist: () => save("checklist.md", "text/markdown", data.checklist),
    fit: () => save("fit.json", "application/json", data.fit),
    svg: (button) => {
      const figure = button.closest("figure");
      save(`${figure.id}.svg`, "image/svg+xml", new XMLSerializer().serializeToString(figure.querySelector("svg")));
    },
    theme: () => {
      const root = document.documentElement;
      const dark = root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.dataset.theme = dark ? "light" : "dark";
    },
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-do]");
    if (button) actions[button.dataset.do](button);
  });

  const ask = document.getElementById("ask");
  if (ask && data.law) {
    const SUFFIX = { "": 1, k: 1e3, m: 1e6, g: 1e9, b: 1e9, t: 1e12 };
    const count = (text) => {
      const found = /^\s*([\d.]+(?:e[+-]?\d+)?)\s*([kmgbt]?)\s*$/i.exec(text);
      return found ? Number(found[1]) * SUFFIX[found[2].toLowerCase()] : NaN;
    };
    const lossOf = ({ E, A, B, alpha, beta, q }, n, d) =>
      E + ((A * n ** -alpha) ** (1 / q) + (B * d ** -beta) ** (1 / q)) ** q;
    const times = (value, [low, high], what) => {
      const factor = value > high ? value / high : low / value;
      if (factor <= 1.05) return "";
      return `${factor.toPrecision(2)} times ${value > high ? "beyond" : "below"} the runs in ${what}`;
    };
    // What a single number would hide: how far it lies from the runs, what other laws say, and what cannot be.
    const caution = (loss, n, d) => {
      const words = [];
      const off = data.runs ? [times(n, data.runs.params, "size"), times(d, data.runs.tokens, "tokens")].filter(Boolean) : [];
      if (off.length) {
        words.push(`An extrapolation, ${off.join(" and ")}.`);
        const said = data.others.map(({ name, law }) => `${name} ${lossOf(law, n, d).toFixed(4)}`);
        words.push(said.length ? `Other laws that these runs identify say: ${said.join(", ")}.` : "No other law is identified to compare with.");
        words.push("isoloss fit with --predict gives the interval.");
      } else if (data.runs) {
        const spread = 2 * data.runs.rms * loss;
        words.push(`About [${(loss - spread).toFixed(4)}, ${(loss + spread).toFixed(4)}]: twice the law's rms error, inside the runs.`);
      }
      if (data.truth !== null && loss < data.truth) {
        words.unshift(`Below the true entropy ${data.truth.toFixed(4)}, which no model can beat: the law is wrong here.`);
      }
      return words.join(" ");
    };
    const answer = () => {
      const [n, d] = [count(ask.params.value), count(ask.tokens.value)];
      const loss = lossOf(data.law, n, d);
      const known = Number.isFinite(loss);
      ask.loss.value = known ? `${loss.toFixed(4)} ${data.unit}` : "a count, for example 20M";
      document.getElementById("caution").textContent = known ? caution(loss, n, d) : "";
    };
    ask.addEventListener("input", answer);
    ask.addEventListener("submit", (event) => event.preventDefault());
    answer();
  }
})();
