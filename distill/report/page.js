"use strict";
// The page is complete without this: it adds selection, sorting, copying and hints.
(() => {
  const all = (selector, root = document) => [...root.querySelectorAll(selector)];
  const tip = document.getElementById("tip");
  const status = document.getElementById("status");
  document.documentElement.classList.add("js");

  function select(trial, isAsked) {
    for (const element of all("[data-trial]")) {
      const isIt = element.dataset.trial === trial;
      element.classList.toggle("selected", isIt);
      if (element.hasAttribute("aria-pressed")) element.setAttribute("aria-pressed", String(isIt));
      if (isIt && element.matches("path.curve")) element.parentNode.append(element);
    }
    if (isAsked) status.textContent = `${trial} is selected: its configuration is shown`;
  }

  function showTip(point) {
    tip.textContent = point.getAttribute("aria-label").replace(": ", "\n").replaceAll(", ", "\n");
    tip.hidden = false;
    const at = point.querySelector(".ring").getBoundingClientRect();
    const box = tip.getBoundingClientRect();
    const left = Math.min(Math.max(at.left + at.width / 2 - box.width / 2, 6), innerWidth - box.width - 6);
    const above = at.top - box.height - 6;
    tip.style.left = `${left}px`;
    tip.style.top = `${above < 4 ? at.bottom + 6 : above}px`;
  }
  const hideTip = () => { tip.hidden = true; };

  for (const chart of all("svg.plot")) {
    const x = (point) => point.transform.baseVal.consolidate().matrix.e;
    const points = all(".point", chart).sort((a, b) => x(a) - x(b));
    if (!points.length) continue;
    points[0].setAttribute("tabindex", "0"); // one stop for Tab; arrows go on from there
    points.forEach((point, index) => {
      point.addEventListener("click", () => select(point.dataset.trial, true));
      point.addEventListener("pointerenter", () => showTip(point));
      point.addEventListener("pointerleave", hideTip);
      point.addEventListener("focus", () => showTip(point));
      point.addEventListener("blur", hideTip);
      point.addEventListener("keydown", (event) => {
        const move = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
        if (event.key === "Enter" || event.key === " ") select(point.dataset.trial, true);
        else if (event.key === "Escape") hideTip();
        else if (move) {
          const next = points[(index + move + points.length) % points.length];
          for (const other of points) other.setAttribute("tabindex", other === next ? "0" : "-1");
          next.focus();
        } else return;
        event.preventDefault();
      });
    });
  }
  addEventListener("scroll", hideTip, { passive: true });

  for (const button of all("button.pick")) {
    button.addEventListener("click", () => select(button.dataset.trial, true));
  }

  for (const radio of all("input[name=cost]")) {
    radio.addEventListener("change", () => {
      for (const figure of all("figure[data-cost]")) figure.hidden = figure.dataset.cost !== radio.value;
    });
    if (radio.checked) radio.dispatchEvent(new Event("change"));
  }

  for (const table of all("table.sortable")) {
    const heads = all("thead th", table);
    heads.forEach((head, column) => {
      const button = head.querySelector("button");
      if (!button) return;
      button.addEventListener("click", () => {
        const isDown = head.getAttribute("aria-sort") !== "descending";
        const body = table.tBodies[0];
        const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent;
        const rows = [...body.rows].sort((a, b) => {
          const [left, right] = [value(a), value(b)];
          if (left === "" || right === "") return (left === "") - (right === ""); // missing last
          const order = isNaN(left) || isNaN(right) ? left.localeCompare(right) : left - right;
          return isDown ? -order : order;
        });
        for (const other of heads) other.removeAttribute("aria-sort");
        head.setAttribute("aria-sort", isDown ? "descending" : "ascending");
        body.append(...rows);
      });
    });
  }

  for (const button of all("button.copy")) {
    button.addEventListener("click", async () => {
      const text = button.parentElement.querySelector("pre");
      try {
        await navigator.clipboard.writeText(text.textContent);
        status.textContent = button.textContent = "Copied";
      } catch { // no clipboard for this page: select it, so that Ctrl-C copies
        getSelection().selectAllChildren(text);
        status.textContent = button.textContent = "Selected: press Ctrl-C";
      }
    });
  }

  const boxes = all(".scrollbox");
  function showMore() { // a shadow and a hint where columns are hidden to the right
    for (const box of boxes) {
      const inner = box.firstElementChild;
      box.classList.toggle("more", inner.scrollWidth - inner.clientWidth - inner.scrollLeft > 2);
      const hint = box.previousElementSibling?.querySelector(".hint");
      if (hint) hint.hidden = inner.scrollWidth <= inner.clientWidth + 2;
    }
  }
  for (const box of boxes) box.firstElementChild.addEventListener("scroll", showMore, { passive: true });
  addEventListener("resize", showMore);
  showMore();

  addEventListener("beforeprint", () => { for (const one of all("details")) one.open = true; });
  const first = document.querySelector(".configuration[data-first]");
  if (first) select(first.dataset.trial, false);
})();
