"use strict";
// Charts answer: a moment is chosen with the pointer or the keyboard, lines are switched by their boxes.
// Without this script the pictures and all tables still stand.
function answer(chart) {
  const data = JSON.parse(chart.querySelector("script").textContent);
  const frame = chart.querySelector(".frame");
  const cursor = chart.querySelector(".cursor");
  const last = data.x.length - 1;
  const page = Math.max(1, Math.round(last / 10));
  const toggles = [...chart.querySelectorAll("[data-toggles]")];
  let top = 1;
  let chosen = data.chosen;

  const percent = (share) => `${100 * share}%`;
  const display = (element, shown) => (shown ? element.removeAttribute("display") : element.setAttribute("display", "none"));

  function choose(moment) {
    chosen = Math.min(last, Math.max(0, moment));
    const x = percent(data.x[chosen]);
    for (const end of ["x1", "x2"]) cursor.querySelector("line").setAttribute(end, x);
    const read = [];
    for (const [key, texts] of Object.entries(data.texts)) {
      const height = data.curves[key][chosen];
      const mark = cursor.querySelector(`circle[data-line="${key}"]`);
      mark.setAttribute("cx", x);
      mark.setAttribute("cy", percent(1 - (height ?? 0) / top));
      const toggle = chart.querySelector(`[data-toggles="${key}"]`);
      display(mark, height !== null);
      chart.querySelector(`[data-value="${key}"]`).textContent = texts[chosen];
      if (toggle.checked && height !== null) read.push(`${toggle.parentElement.textContent} ${texts[chosen]}`);
    }
    const moment_ = data.moments[chosen] + (data.note && chosen === data.chosen ? ` (${data.note})` : "");
    chart.querySelector(".moment").textContent = moment_;
    frame.setAttribute("aria-valuenow", chosen);
    frame.setAttribute("aria-valuetext", [moment_, ...read].join(", "));
  }

  // The axis is that of the highest line in view; nothing in view: it stays.
  function scale() {
    const shown = toggles.filter((toggle) => toggle.checked).map((toggle) => toggle.dataset.toggles);
    const highest = shown.reduce((a, b) => (a !== null && data.most[a] >= data.most[b] ? a : b), null);
    if (highest !== null) {
      top = data.tops[highest];
      for (const axis of chart.querySelectorAll("[data-axis]")) display(axis, axis.dataset.axis === highest);
    }
    for (const curve of chart.querySelectorAll("[data-curve]"))
      curve.setAttribute("transform", `translate(0 1000) scale(1 ${-(data.most[curve.dataset.curve] || 1) / top})`);
    for (const limit of chart.querySelectorAll("[data-limit]")) {
      const y = percent(1 - data.most[limit.dataset.limit] / top);
      for (const end of ["y1", "y2"]) limit.querySelector("line").setAttribute(end, y);
      limit.querySelector("text").setAttribute("y", y);
      display(limit, data.most[limit.dataset.limit] <= top);
    }
    choose(chosen);
  }

  // The moment nearest to where the pointer is.
  function point(event) {
    const box = frame.getBoundingClientRect();
    const x = (event.clientX - box.left) / box.width;
    let after = data.x.findIndex((share) => share >= x);
    if (after < 0) after = last;
    choose(after > 0 && x - data.x[after - 1] < data.x[after] - x ? after - 1 : after);
  }

  const keys = {
    ArrowLeft: () => chosen - 1,
    ArrowDown: () => chosen - 1,
    ArrowRight: () => chosen + 1,
    ArrowUp: () => chosen + 1,
    PageDown: () => chosen - page,
    PageUp: () => chosen + page,
    Home: () => 0,
    End: () => last,
    Escape: () => data.chosen,
  };

  for (const event of ["pointermove", "pointerdown"]) frame.addEventListener(event, point);
  frame.addEventListener("keydown", (event) => {
    if (!(event.key in keys) || event.ctrlKey || event.altKey || event.metaKey) return;
    event.preventDefault();
    choose(keys[event.key]());
  });
  for (const toggle of toggles) toggle.addEventListener("change", scale);

  frame.tabIndex = 0;
  const roles = { role: "slider", "aria-label": frame.dataset.label, "aria-valuemin": 0, "aria-valuemax": last };
  for (const [name, value] of Object.entries(roles)) frame.setAttribute(name, value);
  scale();
}

document.documentElement.classList.add("with-script");
document.querySelectorAll(".chart").forEach(answer);
