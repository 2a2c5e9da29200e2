"use strict";
// The timeline answers: a moment is chosen with the pointer or the keyboard, lines are switched by their boxes.
// Without this script the picture and all tables still stand.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const frame = document.getElementById("frame");
  if (!frame) return;
  const chart = document.getElementById("chart");
  const cursor = document.getElementById("cursor");
  const last = data.seconds.length - 1;
  const page = Math.max(1, Math.round(last / 10));
  const toggles = [...chart.querySelectorAll("[data-toggles]")];
  let top = 1;
  let chosen = data.peak ?? last;

  const percent = (share) => `${100 * share}%`;
  const display = (element, shown) => (shown ? element.removeAttribute("display") : element.setAttribute("display", "none"));

  function choose(moment) {
    chosen = Math.min(last, Math.max(0, moment));
    const x = percent(data.seconds[chosen] / data.span);
    for (const end of ["x1", "x2"]) cursor.querySelector("line").setAttribute(end, x);
    const read = [];
    for (const [key, sizes] of Object.entries(data.sizes)) {
      const bytes = data.curves[key][chosen];
      const mark = cursor.querySelector(`circle[data-line="${key}"]`);
      mark.setAttribute("cx", x);
      mark.setAttribute("cy", percent(1 - (bytes ?? 0) / top));
      display(mark, bytes !== null);
      const value = chart.querySelector(`[data-value="${key}"]`);
      value.textContent = sizes[chosen];
      const toggle = chart.querySelector(`[data-toggles="${key}"]`);
      if (toggle.checked && bytes !== null) read.push(`${toggle.parentElement.textContent} ${sizes[chosen]}`);
    }
    const note = chosen === data.peak ? " (the peak)" : "";
    document.getElementById("moment").textContent = data.moments[chosen] + note;
    frame.setAttribute("aria-valuenow", chosen);
    frame.setAttribute("aria-valuetext", [data.moments[chosen] + note, ...read].join(", "));
  }

  // The axis is that of the largest line in view; nothing in view: it stays.
  function scale() {
    const shown = toggles.filter((toggle) => toggle.checked).map((toggle) => toggle.dataset.toggles);
    const largest = shown.reduce((a, b) => (a !== null && data.most[a] >= data.most[b] ? a : b), null);
    if (largest !== null) {
      top = data.tops[largest];
      for (const axis of chart.querySelectorAll("[data-axis]")) display(axis, axis.dataset.axis === largest);
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
    const seconds = ((event.clientX - box.left) / box.width) * data.span;
    let after = data.seconds.findIndex((moment) => moment >= seconds);
    if (after < 0) after = last;
    const nearer = after > 0 && seconds - data.seconds[after - 1] < data.seconds[after] - seconds;
    choose(nearer ? after - 1 : after);
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
    Escape: () => data.peak ?? last,
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
  document.documentElement.classList.add("with-script");
  scale();
})();
